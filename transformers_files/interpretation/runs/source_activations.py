"""One source run through the model: its own continuation, and the hidden embeddings asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from ..models.activations import capture
from ..models.forward import end_of_sequence_ids, input_device, next_logits
from ..models.kv_cache import empty_cache
from ..models.token_text import token_pieces, token_strings
from ..prompts.index_selection import Position, Segment, span_name
from ..results.record import MINUS
from .grid import Plan, Source
from .source_model import SourceModel


def continue_greedily(model: nn.Module, input_ids: Sequence[int], max_new_tokens: int) -> tuple[int, ...]:
    """The model's continuation by raw argmax: `max_new_tokens` tokens, or fewer up to an end-of-sequence token.

    It also ends, with a warning, where the logits have NaN or no largest number: any token would be made up.
    """
    ends = end_of_sequence_ids(model)
    output: list[int] = []
    with torch.no_grad():
        cache, step = empty_cache(model), list(input_ids)
        while len(output) < max_new_tokens and not ends.intersection(output):
            logits, cache = next_logits(model, torch.tensor([step], device=input_device(model)), cache)
            if not logits[0].max().isfinite():
                text = (
                    f"a prompt's output ends after {len(output)} tokens: the model's logits have NaN or infinity there"
                )
                warnings.warn(text, stacklevel=2)
                break
            step = [int(logits[0].argmax())]
            output += step
    return tuple(output)


def layers_at_once(tokens: int, hidden: int, captured_bytes: int) -> int:
    """How many layers' hidden states of that many tokens are held at once: one at least."""
    return max(1, captured_bytes // (tokens * hidden * 4))


class SourceActivations:
    """The token ids of a source, outputs included, and its hidden embeddings; of a difference the other prompt's too.

    Of these, as many consecutive layers are held at once as the plan's `captured_bytes` allow.
    """

    def __init__(self, source_model: SourceModel, source: Source, plan: Plan) -> None:
        output = continue_greedily(source_model.model, source.input_ids, plan.prompt_output_tokens)
        self.source = source
        self.input_ids = (*source.input_ids, *output)
        """Of the prompt and its output."""
        self._spans = [token for token in source.tokens if not isinstance(token, int)]
        self.tokens = (*token_strings(source_model.tokenizer, self.input_ids), *map(span_name, self._spans))
        """Their raw token strings, then the names of means and segments."""
        self.output_text = "".join(token_pieces(source_model.tokenizer, output))
        self._model = source_model.model
        self._tokenizer = source_model.tokenizer
        self._plan = plan
        self._rows: dict[Position, slice] = {}
        """Where the captured vectors of each token are."""
        self._captured: list[int | range] = []
        for token in source.tokens:
            if not isinstance(token, int) or token < len(self.input_ids):
                begin = len(self._captured)
                self._captured += _single(token)
                self._rows[token] = slice(begin, len(self._captured))
        self._block: dict[int, torch.Tensor] = {}

    def has(self, token: Position) -> bool:
        """Whether the token exists: the output may have ended before it."""
        return token in self._rows

    def index(self, token: Position) -> int:
        """Where `tokens` has the token, or the name of the mean or segment."""
        return token if isinstance(token, int) else len(self.input_ids) + self._spans.index(token)

    def name(self, token: Position) -> str:
        """Its string in `tokens`; of a difference also the other prompt's, and where that stands: "Ġis − Ġwas[6]"."""
        ours = self.tokens[self.index(token)]
        if self.source.minus is None:
            return ours
        its = self.source.minus.tokens[list(self._rows).index(token)]
        if not isinstance(its, int):
            return f"{ours}{MINUS}{span_name(its)}"
        (its_string,) = token_strings(self._tokenizer, [self.source.minus.input_ids[its]])
        return f"{ours}{MINUS}{its_string}[{its}]"

    def kind(self, token: Position) -> str:
        """What the record calls it: see `Record.token_source`."""
        if self.source.minus is not None:
            return "difference"
        if isinstance(token, Segment):
            return "segment"
        if isinstance(token, range):
            return "mean"
        return "prompt" if token < len(self.source.input_ids) else "output"

    def vectors(self, layer: int, token: Position) -> torch.Tensor:
        """The hidden embeddings, `[1, n, hidden]`, n 1 but for segments; of a difference also those to be subtracted,
        `[2, n, hidden]`."""
        if layer not in self._block:
            self._block = {}  # before the next block is made, so that two are never held at once
            self._block = self._capture(layer)
        return self._block[layer][:, self._rows[token]].clone()  # a view would keep the whole block alive

    def _capture(self, layer: int) -> dict[int, torch.Tensor]:
        """The block of layers that `layer` belongs to: `{layer: [1 or 2, tokens, hidden]}`."""
        hidden = self._model.get_input_embeddings().weight.shape[-1]
        size = layers_at_once(len(self._captured), hidden, self._plan.captured_bytes)
        first = self._plan.layers.index(layer) // size * size
        block = self._plan.layers[first : first + size]
        sides = [self._states(self.input_ids, block, self._captured)]
        if self.source.minus is not None:
            its = [each for token in self.source.minus.tokens for each in _single(token)]
            sides.append(self._states(self.source.minus.input_ids, block, its))
        return dict(zip(block, torch.stack(sides, dim=1)))

    def _states(self, input_ids: Sequence[int], layers: Sequence[int], tokens: Sequence[int | range]) -> torch.Tensor:
        """`[len(layers), len(tokens), hidden]`"""
        ids = torch.tensor([input_ids], device=input_device(self._model))
        return capture(self._model, ids, layers, tokens, self._plan.hook_point)


def _single(token: Position) -> Sequence[int | range]:
    """What is captured for a token: itself, or each of a segment's."""
    return token.positions if isinstance(token, Segment) else [token]
