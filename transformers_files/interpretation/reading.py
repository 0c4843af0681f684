"""One source run through the model: its own continuation, and the hidden embeddings asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .cache import empty_cache
from .capture import capture
from .logits import end_of_sequence_ids, input_device, next_logits
from .plan import Source
from .record import token_pieces

CAPTURED_BYTES = 256 * 2**20
"""Hidden states held at once, unless those of a single layer are more."""


def continue_greedily(model: nn.Module, input_ids: Sequence[int], max_new_tokens: int) -> tuple[int, ...]:
    """The model's continuation by raw argmax: `max_new_tokens` tokens, or fewer up to an end-of-sequence token."""
    ends = end_of_sequence_ids(model)
    output: list[int] = []
    with torch.no_grad():
        cache, step = empty_cache(model), list(input_ids)
        while len(output) < max_new_tokens and not ends.intersection(output):
            logits, cache = next_logits(model, torch.tensor([step], device=input_device(model)), cache)
            step = [int(logits[0].argmax())]
            output += step
    return tuple(output)


def layers_at_once(tokens: int, hidden: int) -> int:
    """How many layers' hidden states of that many tokens are held at once: one at least."""
    return max(1, CAPTURED_BYTES // (tokens * hidden * 4))


class Reading:
    """The token ids of a source, outputs included, and its hidden states.

    Of these, as many consecutive layers are held at once as CAPTURED_BYTES allows.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, source: Source, layers: Sequence[int], prompt_output_tokens: int
    ) -> None:
        output = continue_greedily(model, source.input_ids, prompt_output_tokens)
        self.source = source
        self.input_ids = (*source.input_ids, *output)
        """Of the prompt and its output."""
        self.tokens = tuple(tokenizer.convert_ids_to_tokens(list(self.input_ids)))
        """Their raw token strings."""
        self.output_text = "".join(token_pieces(tokenizer, output))
        self._model = model
        self._layers = layers
        self._rows = {token: row for row, token in enumerate(t for t in source.tokens if t < len(self.input_ids))}
        self._block: dict[int, torch.Tensor] = {}

    def has(self, token: int) -> bool:
        """Whether the token exists: the output may have ended before it."""
        return token in self._rows

    def vector(self, layer: int, token: int) -> torch.Tensor:
        """The hidden embedding `[hidden]`."""
        if layer not in self._block:
            self._block = {}  # before the next block is made, so that two are never held at once
            self._block = self._capture(layer)
        return self._block[layer][self._rows[token]].clone()  # a view would keep the whole block alive

    def _capture(self, layer: int) -> dict[int, torch.Tensor]:
        """The block of layers that `layer` belongs to: `{layer: [tokens, hidden]}`."""
        size = layers_at_once(len(self._rows), self._model.get_input_embeddings().weight.shape[-1])
        first = self._layers.index(layer) // size * size
        block = self._layers[first : first + size]
        input_ids = torch.tensor([self.input_ids], device=input_device(self._model))
        return dict(zip(block, capture(self._model, input_ids, block, list(self._rows))))
