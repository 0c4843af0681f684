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

from ..models.chat_template import has_chat_template, user_turn
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .own_header import KEY, OwnHeader
from .projection import PARTS, Projection
from .reader import FittedReader, ReaderError, hidden_size

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
_MARK = "{vector}"
_QUESTION, _ANSWER = f'What is the meaning of "{_MARK}"?', f'The meaning of "{_MARK}" is "'


@dataclass(frozen=True)
class SelfieAdapter:
    """An adapter's file, read whole: it is small."""

    path: Path
    projection: Projection
    hidden: int
    layer: int | None
    """Whose vectors it was trained on, in this package's numbers; None where no file says."""
    own: OwnHeader | None = None
    """What the file says if this package has written it."""

    @property
    def description(self) -> str:
        kind, mean = (
            self.projection.kind.replace("_", " "),
            " less its mean" if self.projection.mean is not None else "",
        )
        model = "" if self.own is None else f", trained on {self.own.model}"
        read = "" if self.layer is None else f", of layer {self.layer}{mean}"
        return f"SelfIE adapter {self.path.name}: {kind}, hidden size {self.hidden}{model}{read}"

    @property
    def digest(self) -> str:
        files = [self.path] + ([] if self.projection.mean is None else [self.path.with_name(MEANS)])
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]

    def fit(self, model: nn.Module, tokenizer: Tokenizer, layers: str | None = None) -> FittedReader:
        """Raises ReaderError."""
        if (expected := hidden_size(model)) != self.hidden:
            raise ReaderError(f"reader {self.path}: found hidden size {self.hidden}, expected the model's {expected}")
        own = None if self.layer is None else str(self.layer)
        if layers is None and own is None:
            raise ReaderError(f"reader {self.path}: no file says of which layer its vectors are; give layers")
        if layers is not None and own is not None and layers != own:
            raise ReaderError(f"reader {self.path}: found layers {layers}, expected {own}, which it was trained on")
        prompt = published_prompt(tokenizer) if self.own is None else self.own.prompt
        if prompt is None:
            raise ReaderError(
                f"reader {self.path}: found a tokenizer in which none of {', '.join(_PROMPTS)} is one token; expected "
                "one of Llama 3 or Qwen2.5, whose prompts are known"
            )
        return FittedReader(prompt, 0, "normalized", str(layers or own), self.projection)


def recognises(path: Path) -> bool:
    """Whether it is a single safetensors file."""
    return path.is_file() and path.suffix == ".safetensors"


def read(path: Path) -> SelfieAdapter:
    """Raises ReaderError."""
    header, tensors = _contents(path)
    kind, normalizes, size = _configuration(path, header)
    expected = PARTS[kind]
    if set(tensors) != set(expected):
        raise ReaderError(f"reader {path}: found tensors {sorted(tensors)}, expected {sorted(expected)} of {kind}")
    sizes = {len(tensors[name]) for name in ("bias", "weight", "U", "V") if name in tensors}
    sizes |= {tensors["weight"].shape[1]} if "weight" in tensors else set()
    hidden = size if size is not None else next(iter(sizes), None)
    if hidden is None:
        raise ReaderError(f"reader {path}: found no model_dim in its header, expected one for {kind}")
    if sizes - {hidden}:
        raise ReaderError(f"reader {path}: found tensors of size {sorted(sizes)}, expected {hidden}")
    own = OwnHeader.of(header, path)
    has_mean = _WITH_MEAN in path.name.lower() if own is None else own.mean
    mean, layer = _mean(path, hidden) if has_mean else (None, None)
    if own is not None and has_mean and layer != own.layer:
        raise ReaderError(f"reader {path}: found the mean of layer {layer} beside it, expected that of {own.layer}")
    projection = Projection(kind, normalizes, {name: one.float() for name, one in tensors.items()}, mean)
    return SelfieAdapter(path, projection, hidden, layer if own is None else own.layer, own)


def write(adapter: SelfieAdapter, config: Mapping[str, Any], header: Mapping[str, str]) -> None:
    """The file that `read` makes it of, in the published layout, and its mean beside it.

    config: what is said of the projection besides its type. header: further texts.

    Raises ReaderError where another mean lies there.
    """
    from safetensors.torch import save_file

    projection, path = adapter.projection, adapter.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if projection.mean is not None and not mean_is_beside(path, projection.mean, adapter.layer):
        save_file({f"layer_{(adapter.layer or 0) - 1}": projection.mean}, str(path.with_name(MEANS)))
    told = {"type": projection.kind, "normalize_input": projection.normalizes, **config}
    texts = {"config_json": json.dumps({"projection": told}), "model_dim": str(adapter.hidden), **header}
    texts |= {} if adapter.own is None else {KEY: adapter.own.to_json()}
    beside = path.with_name(f"{path.name}.tmp")
    save_file({name: one.contiguous() for name, one in projection.tensors.items()}, str(beside), metadata=texts)
    beside.replace(path)


def mean_is_beside(path: Path, mean: Tensor, layer: int | None) -> bool:
    """Whether this mean lies beside an adapter's file already; False where none does.

    Raises ReaderError where another does, and for a layer that the published layout, which counts the outputs of
    blocks, has no name for.
    """
    if not layer:
        raise ReaderError(f"reader {path}: found a mean of layer {layer}, expected one of a layer from 1 on")
    if not path.with_name(MEANS).exists():
        return False
    there, its_layer = _mean(path, len(mean))
    if its_layer != layer or not torch.allclose(there, mean):
        raise ReaderError(
            f"reader {path}: found the mean of other vectors in {path.with_name(MEANS)}, where its own would go; name "
            "another folder"
        )
    return True


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
    if kind not in PARTS:
        raise ReaderError(f"reader {path}: found projection type {kind!r} in its header, expected {', '.join(PARTS)}")
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


def published_prompt(tokenizer: Tokenizer) -> InterpretationPromptSpec | None:
    """None for a tokenizer whose prompt was not published."""
    for mark, turns in _PROMPTS.items():
        if tokenizer.encode(mark, add_special_tokens=False) == [tokenizer.get_vocab().get(mark)]:
            return _asking(turns.format(_QUESTION, _ANSWER).replace(_MARK, mark), mark)
    return None


def prompt_for(tokenizer: Tokenizer) -> InterpretationPromptSpec:
    """The published prompt; or the same words in the turns of the tokenizer's own chat template, or of none."""
    published = published_prompt(tokenizer)
    if published is not None:
        return published
    question = user_turn(tokenizer, _QUESTION) if has_chat_template(tokenizer) else f"{_QUESTION}\n"
    gap = "" if question[-1:].isspace() else " "
    return _asking(question + gap + _ANSWER, _MARK)


def _asking(text: str, mark: str) -> InterpretationPromptSpec:
    return InterpretationPromptSpec("selfie_adapter", text=text, placeholder=mark, stop='"')
