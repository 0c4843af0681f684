"""From a source model's or layer's space to a target's, as Patchscopes (Ghandeharioun et al. 2024, section 3) has it.

    mapping = fit_affine(small, tokenizer, texts, source_layer=12, target_model=large, target_layer=3)
    interpret(large, tokenizer, prompt, source_model=small, layers=12, insert_layer=3, mapping=mapping)
    mapping.save("12-to-3.safetensors"); AffineMap.load("12-to-3.safetensors")

A mapping is any callable from vectors `[n, source hidden]` to `[n, target hidden]`; or a dict of them by source layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.activations import capture
from ..models.chat_template import encode_prompt, wants_special_tokens
from ..models.default_device import cpu_by_default
from ..models.layer_inputs import check_evaluation_mode
from ..models.tokenizer import Tokenizer

VectorMap = Callable[[Tensor], Tensor]
"""`[n, source hidden]` → `[n, target hidden]`."""
AnyMap = VectorMap | Mapping[int, VectorMap] | None
"""One for all layers; one for each source layer; None is the identity."""


class MappingError(ValueError):
    """A vector does not fit the space that it should go into, with or without a mapping."""


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x → x · weight + bias."""

    weight: Tensor
    """`[source hidden, target hidden]`, float32, on the CPU."""
    bias: Tensor
    """`[target hidden]`, likewise."""

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            raise MappingError(f"weight {list(self.weight.shape)} and bias {list(self.bias.shape)} do not fit")

    def __call__(self, vectors: Tensor) -> Tensor:
        """`[n, source hidden]` → `[n, target hidden]`, in float32 on the CPU."""
        if vectors.shape[-1] != len(self.weight):
            raise MappingError(f"vectors of size {vectors.shape[-1]} for a map that takes {len(self.weight)}")
        return vectors.to(self.weight) @ self.weight + self.bias

    def save(self, path: str | Path) -> None:
        """As safetensors."""
        from safetensors.torch import save_file

        save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> AffineMap:
        """Raises MappingError for a file of something else."""
        from safetensors.torch import load_file

        tensors = load_file(str(path))
        if set(tensors) != {"weight", "bias"}:
            raise MappingError(f"{path} holds {sorted(tensors)}; an affine map has bias and weight")
        return cls(**tensors)


def is_affine_map(path: str | Path) -> bool:
    """Whether a file holds one affine map, as `AffineMap.save` writes it, rather than maps by source layer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return set(file.keys()) == {"weight", "bias"}
    except (OSError, SafetensorError):
        return False


def map_vectors(mapping: AnyMap, vectors: Tensor, layer: int | None, hidden: int) -> Tensor:
    """Vectors `[n, source hidden]` of one source layer (None: of none) → `[n, hidden]`.

    Raises MappingError where the mapping has nothing for the layer, or where sizes do not fit.
    """
    if isinstance(mapping, Mapping):
        if layer is None or layer not in mapping:
            where = "vectors that come from no layer" if layer is None else f"layer {layer}"
            raise MappingError(f"the mapping has the source layers {sorted(mapping)}, and nothing for {where}")
        mapping = mapping[layer]
    mapped = vectors if mapping is None else mapping(vectors)
    if isinstance(mapped, Tensor) and mapped.shape == (len(vectors), hidden) and mapped.is_floating_point():
        return mapped
    if mapping is None:
        raise MappingError(
            f"the source's hidden size is {vectors.shape[-1]} and the target's {hidden}: give a mapping from one to "
            "the other, such as fit_affine makes"
        )
    found = f"{mapped.dtype} {list(mapped.shape)}" if isinstance(mapped, Tensor) else f"a {type(mapped).__name__}"
    raise MappingError(
        f"the mapping made {found} of {list(vectors.shape)}; expected floating point numbers, {[len(vectors), hidden]}"
    )


@cpu_by_default
def fit_affine(
    source_model: nn.Module,
    source_tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    source_layer: int,
    target_layer: int,
    target_model: nn.Module | None = None,
    target_tokenizer: Tokenizer | None = None,
    ridge: float = 0.0,
    skip: int = 1,
) -> AffineMap:
    """The affine map from one layer's hidden states to another's that is best in the least squares sense on some texts.

    Minimises Σ ‖target − (source · weight + bias)‖² + λ ‖weight‖², λ = ridge · tokens · mean variance of a source
    dimension; sums and solution in float64.

    Args:
        texts: read as they are. More tokens than the source has dimensions, unless `ridge` is positive.
        source_layer, target_layer: indices into the n_layers + 1 hidden states.
        target_model, target_tokenizer: None: the source's. Where tokenizers differ (both must be fast then), those
            tokens count after which both have read the same text.
        ridge: penalty of large weights.
        skip: tokens at the beginning of each text to leave out: a model's first state is often of another magnitude
            than all others, and least squares would serve it alone.

    Raises:
        MappingError: too few tokens.
        ValueError: a layer out of range, a negative `ridge` or `skip`, a model in training mode.
    """
    if not ridge >= 0 or skip < 0:
        raise ValueError(f"ridge is {ridge} and skip {skip}: neither can be less than 0")
    target_model = source_model if target_model is None else target_model
    for model in (source_model, target_model):
        check_evaluation_mode(model)
    tokenizers = source_tokenizer, source_tokenizer if target_tokenizer is None else target_tokenizer
    moments = _Moments()
    for text in texts:
        source_ids, target_ids, pairs = _paired_tokens(*tokenizers, text)
        pairs = [(mine, theirs) for mine, theirs in pairs if mine >= skip and theirs >= skip]
        if pairs:
            mine, theirs = zip(*pairs)
            moments.add(
                capture(source_model, torch.tensor([source_ids]), [source_layer], mine)[0],
                capture(target_model, torch.tensor([target_ids]), [target_layer], theirs)[0],
            )
    return moments.solve(ridge)


class _Moments:
    """Sums over pairs of states, from which the best map follows: memory does not grow with the text."""

    def __init__(self) -> None:
        self.count = 0
        self.sources = self.targets = self.squares = self.products = torch.zeros((), dtype=torch.float64)

    def add(self, sources: Tensor, targets: Tensor) -> None:
        """States `[n, source hidden]` and `[n, target hidden]`."""
        sources, targets = sources.double(), targets.double()
        self.count += len(sources)
        self.sources = self.sources + sources.sum(0)
        self.targets = self.targets + targets.sum(0)
        self.squares = self.squares + sources.T @ sources
        self.products = self.products + sources.T @ targets

    def solve(self, ridge: float) -> AffineMap:
        """The least squares map of everything that was added."""
        if not self.count:
            raise MappingError("the texts have no tokens to fit a map on")
        mine, theirs = self.sources / self.count, self.targets / self.count
        covariance = self.squares - self.count * torch.outer(mine, mine)
        products = self.products - self.count * torch.outer(mine, theirs)
        size = len(mine)
        if ridge == 0 and self.count <= size:
            raise MappingError(
                f"{self.count} tokens for {size} dimensions: a map needs more text, or a ridge (0.01, say)"
            )
        covariance = covariance + ridge * covariance.trace() / size * torch.eye(size, dtype=torch.double)
        if not bool(torch.isfinite(covariance).all() and torch.isfinite(products).all()):
            raise MappingError("hidden states of the texts hold NaN or infinity")
        scale = covariance.diagonal().clamp(min=torch.finfo(torch.double).tiny).sqrt()  # dimensions differ by orders
        weight = torch.linalg.lstsq(covariance / torch.outer(scale, scale), products / scale[:, None]).solution
        weight = weight / scale[:, None]
        return AffineMap(weight.float(), (theirs - mine @ weight).float())


def _paired_tokens(
    source_tokenizer: Tokenizer, target_tokenizer: Tokenizer, text: str
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Token ids of both sides, and pairs of positions after which both have read the same text."""
    source_ids, target_ids = (encode_prompt(side, text, raw=True) for side in (source_tokenizer, target_tokenizer))
    if source_ids == target_ids:
        return source_ids, target_ids, [(position, position) for position in range(len(source_ids))]
    mine, theirs = (_ends(side, text) for side in (source_tokenizer, target_tokenizer))
    return source_ids, target_ids, [(mine[end], theirs[end]) for end in mine if end in theirs]


def _ends(tokenizer: Tokenizer, text: str) -> dict[int, int]:
    """Number of characters read → the token that completes them; special tokens read none."""
    if not tokenizer.is_fast:
        raise MappingError("different tokenizers must be fast ones: only those report the characters of a token")
    special = wants_special_tokens(tokenizer, text, templated=False)
    offsets = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"]
    return {end: position for position, (start, end) in enumerate(offsets) if end > start}
