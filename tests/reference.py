"""Surgery the slow and obvious way, to compare with: one row, one layer and one position at a time, without hooks.

Every decoder layer is replaced by a module that rewrites its input and then calls the layer. Nothing here uses
`transformers.interpretation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class RewritingLayer(nn.Module):
    """A decoder layer whose input is rewritten wherever `insert_info` says so."""

    def __init__(self, layer: nn.Module, index: int, insert_info: Sequence[Mapping[Any, Any]], prompt_length: int):
        super().__init__()
        self.layer = layer
        self.index = index
        self.insert_info = insert_info
        self.prompt_length = prompt_length
        self.seen: Tensor | None = None
        """[rows, columns, hidden]: what the layer was given in the last pass"""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden_states = hidden_states.clone()
        before = self.columns_in_cache(kwargs)
        for row in range(hidden_states.shape[0]):
            info = self.insert_info[row * len(self.insert_info) // hidden_states.shape[0]]
            for column in range(hidden_states.shape[1]):
                self.rewrite(hidden_states[row, column], before + column, info)
        self.seen = hidden_states
        return self.layer(hidden_states, *args, **kwargs)

    def columns_in_cache(self, kwargs: Mapping[str, Any]) -> int:
        """What this very layer has seen before this pass."""
        names = ("cache", "past_key_values", "past_key_value")  # 5.24 and later; 5.0 to 5.23; before
        cache = next((kwargs[name] for name in names if name in kwargs), None)
        if cache is None:
            return 0
        return cache[0].shape[-2] if isinstance(cache, (tuple, list)) else int(cache.get_seq_length(self.index))

    def rewrite(self, state: Tensor, position: int, info: Mapping[Any, Any]) -> None:
        """Change the hidden state [hidden] of one absolute position."""
        if self.index not in info:
            return
        locations, embedding = info[self.index]
        locations = [locations] if isinstance(locations, str) else locations
        for i, location in enumerate(locations):
            if location == "generated":
                meant = position >= self.prompt_length
            else:
                meant = position == (location if location >= 0 else self.prompt_length + location)
            if meant:
                old = state.clone()
                new = embedding(old[None])[0] if callable(embedding) else embedding[0, i]
                state.copy_(replaced(old, new, info["replacing_mode"], self.strength(info, i)))

    def strength(self, info: Mapping[Any, Any], i: int) -> float:
        """Of the i-th location: given once for all, one per location, or either of them by layer."""
        given = info["overlay_strength"]
        given = given[self.index] if isinstance(given, dict) else given
        return float(given[i] if isinstance(given, (list, tuple)) else given)


def replaced(old: Tensor, embedding: Tensor, mode: str, strength: float) -> Tensor:
    """The new hidden state [hidden], each mode written out."""
    if mode.startswith("norm_matched"):
        embedding = embedding * (old @ old).sqrt() / (embedding @ embedding).sqrt()
    if mode.endswith("addition"):
        return old + strength * embedding
    return embedding if strength == 1 else (1 - strength) * old + strength * embedding


def layer_list(model: nn.Module) -> nn.ModuleList:
    """The decoder layers, found by their qualified name."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    names = sorted((name for name in lists if name.split(".")[-1] in ("layers", "h")), key=len)
    return lists[names[0]]


@contextmanager
def rewritten(
    model: nn.Module, insert_info: Sequence[Mapping[Any, Any]], prompt_length: int
) -> Iterator[list[RewritingLayer]]:
    """The model with its decoder layers replaced; the same model as before afterwards."""
    layers = layer_list(model)
    originals = list(layers)
    wrappers = [RewritingLayer(layer, i, insert_info, prompt_length) for i, layer in enumerate(originals)]
    try:
        for i, wrapper in enumerate(wrappers):
            layers[i] = wrapper
        yield wrappers
    finally:
        for i, layer in enumerate(originals):
            layers[i] = layer


def reference_pass(
    model: nn.Module, tokens: Sequence[int], info: Mapping[Any, Any], prompt_length: int | None = None
) -> tuple[list[Tensor], Tensor]:
    """One row without padding or cache: inputs of all layers, each [sequence, hidden]; logits [sequence, vocab]."""
    with rewritten(model, [info], len(tokens) if prompt_length is None else prompt_length) as wrappers:
        logits = model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        return [wrapper.seen[0] for wrapper in wrappers], logits


@torch.no_grad()
def reference_greedy(model: nn.Module, tokens: Sequence[int], info: Mapping[Any, Any], n: int) -> list[int]:
    """The next n tokens by argmax, each from a pass over the whole sequence."""
    sequence = list(tokens)
    for _ in range(n):
        sequence.append(int(reference_pass(model, sequence, info, len(tokens))[1][-1].argmax()))
    return sequence[len(tokens) :]


def reference_generate(
    model: nn.Module, insert_info: Sequence[Mapping[Any, Any]], prompt_length: int, seed: int = 0, **kwargs: Any
) -> Any:
    """The library's own decoding over the rewritten layers; without a cache unless `use_cache=True` is given."""
    torch.manual_seed(seed)
    with rewritten(model, insert_info, prompt_length):
        return model.generate(**{"use_cache": False, **kwargs})
