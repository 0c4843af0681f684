"""The engine's input and output."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..models.layer_spec import InsertLayer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..prompts.stop import LENGTH


@dataclass(frozen=True)
class Cell:
    """One thing to interpret."""

    vector: torch.Tensor
    """The hidden embedding, `[hidden]`, or one per placeholder, `[placeholders, hidden]`; on any device and of any
    floating dtype."""
    prompt: InterpretationPrompt
    """Its placeholders are overwritten: all with the one vector, or each with its own."""
    insert_layer: InsertLayer | None = None
    """At the input of which decoder layer; None: the settings'."""
    depth: float | None = None
    """From 0 to 1, of the hidden state that the vector is; None where it comes from no layer. It matters to
    `InterpretationSettings.deep_gain` alone."""
    seed: int | None = None
    """What the random numbers of a sample follow from; see `sampling`. None: there is no sampling."""


@dataclass(frozen=True)
class Interpretation:
    """What the model says about one vector. Three lists of one length, all empty unless `status` is "ok"."""

    token_ids: tuple[int, ...]
    """The continuation, with the token that ended it: end of sequence, or the one with the prompt's stop in it."""
    probabilities: tuple[float, ...]
    """Probability of each token under surgery."""
    relevancy: tuple[float, ...]
    """How much the surgery changed each token's probability: |with − without|."""
    status: str = "ok"
    """`"ok"`, or what went wrong with this cell alone."""
    ended_by: str = LENGTH
    """`"length"`, `"end of sequence"`, or of prompts with a stop `"stop"` or `"loop"`; see `prompts.stop`."""
