"""Prompts that have been run through the model, kept for the next question about them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..models.families import decoder_layers
from ..models.places import RESIDUAL
from ..runs.grid import Plan, Source
from ..runs.source_activations import SourceActivations
from ..runs.source_model import SourceModel

MOST = 8
"""Prompts that are kept."""
CAPTURED_BYTES = 64 * 2**20
"""Hidden states of one prompt that are held, unless those of a single layer are more."""


class Readings:
    """The activations of sources, those asked for last at hand. For one thread."""

    def __init__(self, source_model: SourceModel, *, most: int = MOST) -> None:
        self._source_model = source_model
        self._most = most
        self._kept: OrderedDict[Any, SourceActivations] = OrderedDict()
        self._n_layers = len(decoder_layers(source_model.model))

    def __call__(self, source: Source, plan: Plan) -> SourceActivations:
        """At least the plan's layers and the source's tokens; where they can be, those of the whole prompt."""
        source, plan = self._whole(source, plan)
        key = (
            source.input_ids,
            tuple(source.tokens),
            source.minus,
            plan.layers,
            plan.hook_point,
            plan.prompt_output_tokens,
        )
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)  # before the next is made
            self._kept[key] = SourceActivations(self._source_model, source, plan)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _whole(self, source: Source, plan: Plan) -> tuple[Source, Plan]:
        """So that another choice of layers and tokens finds the same. Means, segments and differences have no common
        whole, and other places than the residual stream may have other sizes in other layers."""
        if source.minus is None and all(isinstance(token, int) for token in source.tokens):
            source = replace(source, tokens=range(len(source.input_ids) + plan.prompt_output_tokens))
        layers = range(self._n_layers + 1) if plan.hook_point == RESIDUAL else plan.layers
        return source, replace(plan, layers=roughly_first(layers), captured_bytes=CAPTURED_BYTES)


def roughly_first(layers: Sequence[int]) -> tuple[int, ...]:
    """Every fourth layer, then every second, then the others: a rough grid comes first."""
    return (*layers[::4], *layers[2::4], *layers[1::2])
