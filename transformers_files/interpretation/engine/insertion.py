"""Reading an interpretation prompt with vectors inserted at its placeholders.

shared = read_shared_part(model, prompt)
logits, cache = read_under_surgery(model, prompt, cells, settings, shared, untouched=1)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..models.beginning import read_beginning
from ..models.families import decoder_layers
from ..models.forward import input_device, next_logits
from ..models.kv_cache import empty_cache, repeat_rows
from ..models.layer_spec import SAME
from ..models.sending import sent
from ..models.text_so_far import TextSoFar
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..surgery.hooks import SurgeryPlan, plan_surgery, surgery
from .cell import Cell
from .settings import InterpretationSettings


def resolved(cell: Cell, dtype: torch.dtype, settings: InterpretationSettings) -> Cell:
    """The cell as the model takes it: its vector in the model's type, its own layer or the settings'."""
    layer = settings.insert_layer if cell.insert_layer is None else cell.insert_layer
    if layer == SAME:
        raise ValueError(f"insert_layer is {SAME}, and a cell does not say which layer it came from")
    places = len(cell.prompt.insert_locations)
    if cell.vector.ndim not in (1, 2) or (cell.vector.ndim == 2 and len(cell.vector) != places):
        raise ValueError(
            f"a cell has vectors of shape {list(cell.vector.shape)}, and its interpretation prompt "
            f'"{cell.prompt.name}" {places} placeholders: give [hidden], or [{places}, hidden]'
        )
    if settings.sampling is not None and cell.seed is None:
        raise ValueError("the settings have sampling, and a cell has no seed; give it sampling.seed_of(…)")
    return replace(cell, vector=cell.vector.detach().to(dtype), insert_layer=layer)


def read_shared_part(model: nn.Module, prompt: InterpretationPrompt) -> Any:
    """What came before the first placeholder, one row, read once for all; None where nothing did."""
    return read_beginning(model, prompt.input_ids, min(prompt.insert_locations))


def read_under_surgery(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    shared: Any,
    *,
    untouched: int = 0,
) -> tuple[torch.Tensor, Any]:
    """Read the prompt with the vector of each cell inserted, and behind these rows so many without surgery.

    cells: of this prompt, with an insert layer of their own. shared: what `read_shared_part` gave.

    Returns:
        logits `[cells + untouched, vocabulary]` after the prompt, and the cache.
    """
    rest = prompt.input_ids[min(prompt.insert_locations) :]
    rows = len(cells) + untouched
    ids = sent(torch.tensor([rest] * rows, device="cpu"), input_device(model))
    cache = empty_cache(model) if shared is None else repeat_rows(shared, rows)
    plan = _plan(model, prompt, cells, settings, untouched)
    assert plan is not None  # every cell inserts
    with surgery(model, plan):
        logits, cache = next_logits(model, ids, cache)
    if isinstance(cache, TextSoFar):  # there is no cache, so that the placeholders are read again in every step
        cache = cache.under_surgery(lambda rows: _surgery_again(model, prompt, cells, settings, rows))
    return logits, cache


def _surgery_again(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    rows: Sequence[int],
) -> AbstractContextManager:
    """The same surgery on some of the rows: those of cells come first."""
    again = [cells[row] for row in rows if row < len(cells)]
    plan = _plan(model, prompt, again, settings, len(rows) - len(again))
    assert plan is not None  # every cell inserts
    return surgery(model, plan)


def _plan(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    untouched: int,
) -> SurgeryPlan | None:
    """Every row's vectors at the placeholders of the prompt; what comes before the first is in the cache."""
    return plan_surgery(
        [*(insert_info_of(cell, settings) for cell in cells), *[{}] * untouched],
        n_layers=len(decoder_layers(model)),
        hidden_size=cells[0].vector.shape[-1],
        batch_size=len(cells) + untouched,
        prompt_length=len(prompt.input_ids),
        cached_length=prompt.insert_locations[0],
    )


def insert_info_of(cell: Cell, settings: InterpretationSettings) -> dict[Any, Any]:
    """The row of `insert_info` that inserts a cell's vector at the placeholders of its prompt, for gradients too."""
    locations = list(cell.prompt.insert_locations)
    layers = cell.insert_layer if isinstance(cell.insert_layer, tuple) else (cell.insert_layer,)
    gain = settings.gain(cell.depth)
    vectors = cell.vector.expand(1, len(locations), -1)
    if gain != 1:
        vectors = torch.cat([vectors[:, :-1], gain * vectors[:, -1:]], dim=1)
    sites = {(settings.insert_place, layer): (locations, vectors) for layer in layers}
    return sites | {"overlay_strength": settings.overlay_strength, "replacing_mode": settings.replacing_mode}
