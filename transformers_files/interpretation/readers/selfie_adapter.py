"""SelfIE adapters (arXiv:2602.10352, agencyenterprise/selfie-adapters): a vector becomes a soft token.

One safetensors file with the projection's tensors, and its configuration as strings in the header. The vector, less a
mean where one belongs to it, is divided by its norm and goes through the projection, all in float32; the result takes
the place of both placeholders at the embedding layer's output. Layer K of that project is the output of block K: K + 1
here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .reader import FittedReader, ReaderError, hidden_size

_SMALLEST_NORM = 1e-8  # added, as there
_PARTS = {
    "scale_only": ("log_scale",),
    "scalar_affine": ("log_scale", "bias"),
    "low_rank_only": ("U", "V", "bias"),
    "scalar_affine_plus_low_rank": ("log_scale", "U", "V", "bias"),
    "full_rank": ("weight", "bias"),
}
"""The tensors of each type of projection."""
MEANS = "mean-vectors.safetensors"
_WITH_MEAN = "wikipedia"
"""In the names of the adapters whose vectors are differences from a mean over topics, in a file beside them."""
_PROMPTS = {
    "<|reserved_special_token_0|>": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{1}"
    ),
    "<|fim_pad|>": "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}",
}
"""By the token that stands for the vector: of Llama 3 and of Qwen2.5, without a system's turn."""
_QUESTION, _ANSWER = 'What is the meaning of "{0}"?', 'The meaning of "{0}" is "'


@dataclass(frozen=True)
class SelfieAdapter:
    """An adapter's file, read whole: it is small."""

    path: Path
    kind: str
    normalizes: bool
    tensors: Mapping[str, Tensor]
    hidden: int
    mean: Tensor | None
    layer: int | None
    """Whose vectors it was trained on, in this package's numbers; None where no file says."""

    @property
    def description(self) -> str:
        read = "" if self.layer is None else f", of layer {self.layer} less its mean"
        return f"SelfIE adapter {self.path.name}: {self.kind.replace('_', ' ')}, hidden size {self.hidden}{read}"

    @property
    def digest(self) -> str:
        files = [self.path] + ([] if self.mean is None else [self.path.with_name(MEANS)])
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]

    def fit(self, model: nn.Module, tokenizer: Tokenizer, layers: str | None = None) -> FittedReader:
        """Raises ReaderError."""
        if (expected := hidden_size(model)) != self.hidden:
            raise ReaderError(f"reader {self.path}: found hidden size {self.hidden}, expected the model's {expected}")
        own = None if self.layer is None else str(self.layer)
        if layers is None and own is None:
            raise ReaderError(f"reader {self.path}: no file says of which layer its vectors are; give layers")
        if layers is not None and own is not None and layers != own:
            raise ReaderError(f"reader {self.path}: found layers {layers}, expected {own}, which its mean is of")
        return FittedReader(_prompt(self.path, tokenizer), 0, "normalized", str(layers or own), self.soft_tokens)

    def soft_tokens(self, vectors: Tensor) -> Tensor:
        """`[n, hidden]` → `[n, hidden]`, float32, in the units of the embedding layer."""
        x = vectors.float()
        parts = {name: tensor.to(x.device) for name, tensor in self.tensors.items()}
        if self.mean is not None:
            x = x - self.mean.to(x.device)
        if self.normalizes:
            x = x / (x.norm(dim=-1, keepdim=True) + _SMALLEST_NORM)
        made = torch.zeros_like(x)
        if "log_scale" in parts:
            made = made + parts["log_scale"].exp() * x
        if "U" in parts:
            made = made + x @ parts["U"] @ parts["V"].T
        if "weight" in parts:
            made = made + x @ parts["weight"].T
        return made + parts["bias"] if "bias" in parts else made


def recognises(path: Path) -> bool:
    """Whether it is a single safetensors file."""
    return path.is_file() and path.suffix == ".safetensors"


def read(path: Path) -> SelfieAdapter:
    """Raises ReaderError."""
    header, tensors = _contents(path)
    kind, normalizes, size = _configuration(path, header)
    expected = _PARTS[kind]
    if set(tensors) != set(expected):
        raise ReaderError(f"reader {path}: found tensors {sorted(tensors)}, expected {sorted(expected)} of {kind}")
    sizes = {len(tensors[name]) for name in ("bias", "weight", "U", "V") if name in tensors}
    sizes |= {tensors["weight"].shape[1]} if "weight" in tensors else set()
    hidden = size if size is not None else next(iter(sizes), None)
    if hidden is None:
        raise ReaderError(f"reader {path}: found no model_dim in its header, expected one for {kind}")
    if sizes - {hidden}:
        raise ReaderError(f"reader {path}: found tensors of size {sorted(sizes)}, expected {hidden}")
    mean, layer = _mean(path, hidden) if _WITH_MEAN in path.name.lower() else (None, None)
    return SelfieAdapter(path, kind, normalizes, {k: t.float() for k, t in tensors.items()}, hidden, mean, layer)


def _contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has errors of its own, differing by version
        raise ReaderError(f"reader {path}: cannot be read as safetensors: {error}") from error


def _configuration(path: Path, header: Mapping[str, str]) -> tuple[str, bool, int | None]:
    """Type, whether vectors are normalised, and model_dim if it is there."""
    if "config_json" in header:
        try:
            projection = json.loads(header["config_json"])["projection"]
            kind, normalizes = projection["type"], projection.get("normalize_input", True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ReaderError(f"reader {path}: found a config_json without a projection's type: {error!r}") from None
    else:
        kind, normalizes = header.get("projection_type"), header.get("normalize_input", "true")
        normalizes = {"true": True, "false": False}.get(str(normalizes).lower(), normalizes)
    if kind not in _PARTS:
        raise ReaderError(f"reader {path}: found projection type {kind!r} in its header, expected {', '.join(_PARTS)}")
    if not isinstance(normalizes, bool):
        raise ReaderError(f"reader {path}: found normalize_input {normalizes!r}, expected true or false")
    size = header.get("model_dim")
    if size is not None and not size.isdecimal():
        raise ReaderError(f"reader {path}: found model_dim {size!r}, expected a whole number")
    return kind, normalizes, None if size is None else int(size)


def _mean(path: Path, hidden: int) -> tuple[Tensor, int]:
    """The mean that belongs to a layer, and that layer in this package's numbers."""
    file = path.with_name(MEANS)
    if not file.is_file():
        raise ReaderError(f"reader {path}: found no {MEANS} beside it, expected the mean of its training vectors")
    _, means = _contents(file)
    if len(means) != 1 or not (name := next(iter(means))).removeprefix("layer_").isdecimal():
        raise ReaderError(f"reader {file}: found {sorted(means)}, expected one mean named layer_K")
    mean: Any = means[name].float().reshape(-1)
    if len(mean) != hidden:
        raise ReaderError(f"reader {file}: found a mean of size {len(mean)}, expected {hidden}")
    return mean, int(name.removeprefix("layer_")) + 1


def _prompt(path: Path, tokenizer: Tokenizer) -> InterpretationPromptSpec:
    for mark, turns in _PROMPTS.items():
        if tokenizer.encode(mark, add_special_tokens=False) == [tokenizer.get_vocab().get(mark)]:
            text = turns.format(_QUESTION.format(mark), _ANSWER.format(mark))
            return InterpretationPromptSpec("selfie_adapter", text=text, placeholder=mark, stop='"')
    raise ReaderError(
        f"reader {path}: found a tokenizer in which none of {', '.join(_PROMPTS)} is one token; expected one of "
        "Llama 3 or Qwen2.5, whose prompts are known"
    )
