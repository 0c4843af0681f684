"""Strengths for vectors that have no natural norm: features of a sparse autoencoder, steering vectors, probes.

    choices = choose_strengths(model, prompt, vectors, settings, batch_size=64)
    scaled = [choice.factor * vector for choice, vector in zip(choices, vectors)]

A direction does not say how large it should be. Too small, and the model overlooks it; too large, and nothing else of
the interpretation prompt counts. As published for features of sparse autoencoders (Kharlapenko and others,
"Self-explaining SAE features", 2024), several norms are tried in a pass over the interpretation prompt, and two figures
are weighed against each other:

- self-similarity, the cosine of the direction and the hidden state of the first new token before the last decoder
  layer: how much of the vector has arrived where the model speaks (published is the last token of the prompt, but that
  may be a placeholder, where the vector itself stands);
- entropy of the first new token, in nats: how undecided the model is about what to say.

Both are scaled to 0 … 1 over the norms tried, and the norm with the largest difference is chosen. Each norm costs one
pass over the interpretation prompt and one new token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.activations import capture
from ..models.families import decoder_layers
from ..models.forward import next_logits
from ..models.layer_spec import SAME
from ..models.places import FINAL_NORM, RESIDUAL
from ..models.thread_hooks import input_hook
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..surgery.modes import REPLACING_MODES
from .cell import Cell
from .insertion import read_shared_part, read_under_surgery
from .settings import InterpretationSettings

NORMS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""To try, in units of the median norm of the interpretation prompt's own states where vectors are inserted. The median,
because a first token's can be hundreds of times larger."""


@dataclass(frozen=True)
class StrengthChoice:
    """What was tried for one vector, and what was chosen. Three lists of one length."""

    factor: float
    """What to multiply the vector with."""
    norms: tuple[float, ...]
    """Of the vector as it was inserted."""
    self_similarity: tuple[float, ...]
    """−1 … 1."""
    entropy: tuple[float, ...]
    """Nats."""


def choose_strengths(
    model: nn.Module,
    prompt: InterpretationPrompt,
    vectors: Sequence[Tensor],
    settings: InterpretationSettings,
    *,
    batch_size: int,
) -> list[StrengthChoice]:
    """How large each of the vectors `[hidden]` should be for this interpretation prompt.

    Raises ValueError for a vector without a direction (zero, NaN, infinity), for a replacing mode that ignores norms,
    and for an insert layer that depends on where a vector comes from.
    """
    if REPLACING_MODES[settings.replacing_mode].matches_norm:
        raise ValueError(
            f"the replacing mode {settings.replacing_mode} ignores how large a vector is; choose strengths for "
            "normalized or addition"
        )
    given = settings.insert_layer
    if given == SAME:
        raise ValueError(f"insert_layer is {given!r}: choosing strengths needs a layer")
    layers = given if isinstance(given, tuple) else (given,)
    lengths = [float(vector.detach().float().norm()) for vector in vectors]
    for index, length in enumerate(lengths):
        if not 0 < length < math.inf:
            raise ValueError(f"vector {index} has norm {length}: it has no direction")
    with torch.no_grad():
        shared = read_shared_part(model, prompt)
    usual = _usual_norm(model, prompt, layers[0], settings.insert_place)
    norms = [factor * usual for factor in NORMS]
    cells = [
        Cell((norm / length * vector.detach().float()).to(model.dtype), prompt, layers)
        for norm in norms
        for vector, length in zip(vectors, lengths)
    ]
    batches = [cells[start : start + batch_size] for start in range(0, len(cells), batch_size)]
    figures = zip(*(_figures(model, batch, settings, shared) for batch in batches))
    similarity, entropy = (torch.cat(figure).view(len(norms), len(vectors)) for figure in figures)
    best = (_scaled(similarity) - _scaled(entropy)).argmax(dim=0)
    return [
        StrengthChoice(norms[chosen] / length, tuple(norms), tuple(similarities), tuple(entropies))
        for chosen, length, similarities, entropies in zip(
            best.tolist(), lengths, similarity.T.tolist(), entropy.T.tolist()
        )
    ]


def _usual_norm(model: nn.Module, prompt: InterpretationPrompt, layer: int, place: str) -> float:
    others = [column for column in range(len(prompt.input_ids)) if column not in prompt.insert_locations]
    layer, place = (layer + 1, RESIDUAL) if place == FINAL_NORM else (layer, place)  # the last hidden state
    states = capture(model, torch.tensor([prompt.input_ids]), [layer], others or range(len(prompt.input_ids)), place)
    return float(states[0].float().norm(dim=-1).median())


@torch.no_grad()
def _figures(
    model: nn.Module, cells: Sequence[Cell], settings: InterpretationSettings, shared: Any
) -> tuple[Tensor, Tensor]:
    """Self-similarity and entropy `[len(cells)]` of each cell's vector as it is."""
    logits, cache = read_under_surgery(model, cells[0].prompt, cells, settings, shared)
    log_probabilities = logits.float().log_softmax(-1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1).cpu()
    arrived: list[Tensor] = []
    with input_hook(decoder_layers(model)[-1], lambda hidden: arrived.append(hidden[:, -1].float().cpu())):
        next_logits(model, logits.argmax(-1, keepdim=True), cache)
    return torch.cosine_similarity(arrived[0], torch.stack([cell.vector.float().cpu() for cell in cells])), entropy


def _scaled(figures: Tensor) -> Tensor:
    """`[norms, vectors]` to 0 … 1 over the norms of each vector; all 0 where they do not differ."""
    low, high = figures.amin(dim=0), figures.amax(dim=0)
    return (figures - low) / (high - low).clamp_min(1e-12)
