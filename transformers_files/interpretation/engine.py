"""One chunk of (hidden embedding, interpretation prompt) pairs → tokens, probabilities, relevancy. Fast and exact.

    interpretations = interpret_chunk(model, cells, InterpretationSettings(), batch_size=256)

For every cell the placeholders of its interpretation prompt are overwritten with the cell's vector at the input of one
decoder layer, and the model continues by raw argmax. What makes it fast:

- the tokens before the first placeholder are the same for every row: their keys and values are computed once;
- logits are made only where they are read, and probabilities under surgery fall out of the decode steps;
- rows that have ended leave the batch; identical vectors are interpreted once;
- relevancy needs the same text after the same prompt without surgery: see `relevancy`.

Cells are grouped by interpretation prompt, so that all rows of a batch have the same length at every step: no padding,
no attention mask, and the numbers of a row do not depend on its neighbours' lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .attention import one_query_attention
from .cache import empty_cache, repeat_rows, select_rows
from .families import decoder_layers
from .logits import best_tokens, input_device, next_logits
from .prompts import InterpretationPrompt
from .relevancy import plain_probabilities
from .surgery import REPLACING_MODES, SurgeryPlan, plan_surgery, surgery


@dataclass(frozen=True)
class Cell:
    """One thing to interpret."""

    vector: torch.Tensor
    """The hidden embedding, `[hidden]`, on any device and of any floating dtype."""
    prompt: InterpretationPrompt
    """Its placeholders are overwritten with the vector."""


@dataclass(frozen=True)
class InterpretationSettings:
    """How to interpret; the same for every cell of a run."""

    insert_layer: int = 1
    """The decoder layer at whose input the vector is inserted."""
    replacing_mode: str = "normalized"
    """`"normalized"` (blend with what was there) or `"addition"` (add to it)."""
    overlay_strength: float = 1.0
    """Weight of the vector."""
    max_new_tokens: int = 30
    """An interpretation ends here, or with its first end-of-sequence token."""

    def __post_init__(self) -> None:
        if self.insert_layer < 0:
            raise ValueError(f"insert_layer is {self.insert_layer}: count decoder layers from 0")
        if self.replacing_mode not in REPLACING_MODES:
            raise ValueError(f"replacing_mode is {self.replacing_mode!r}: use one of {', '.join(REPLACING_MODES)}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: at least one token is needed")


@dataclass(frozen=True)
class Interpretation:
    """What the model says about one vector. Three lists of one length, all empty unless `status` is "ok"."""

    token_ids: tuple[int, ...]
    """The continuation, with its end-of-sequence token if it reached one."""
    probabilities: tuple[float, ...]
    """Probability of each token under surgery."""
    relevancy: tuple[float, ...]
    """How much the surgery changed each token's probability: |with − without|."""
    status: str = "ok"
    """`"ok"`, or what went wrong with this cell alone."""


@dataclass
class _Row:
    """A vector on its way: the cells that asked for it, and what was said so far."""

    vector: torch.Tensor
    cells: list[int]
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    status: str = "ok"


def interpret_chunk(
    model: nn.Module, cells: Sequence[Cell], settings: InterpretationSettings, *, batch_size: int
) -> list[Interpretation]:
    """Interpret some vectors; the result depends on nothing but the arguments.

    Args:
        model: a causal language model in evaluation mode, on any device or spread over several.
        cells: in any order; several interpretation prompts may be mixed.
        settings: the same for all cells.
        batch_size: rows that are decoded at once; halved when memory runs out.

    Returns:
        one interpretation per cell, in the order of the cells. A vector that is not finite, or that drives the model's
        numbers out of range, is told in its cell's `status`; the others go on.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: at least one row is needed")
    done: dict[int, Interpretation] = {}
    with torch.no_grad(), one_query_attention():
        for prompt in dict.fromkeys(cell.prompt for cell in cells):
            rows = _distinct_rows(cells, prompt, model.dtype)
            _decode_all(model, prompt, [row for row in rows if row.status == "ok"], settings, batch_size)
            texts = [tuple(row.token_ids) for row in rows if row.status == "ok"]
            plain = plain_probabilities(model, prompt.input_ids, texts, batch_size=batch_size)
            for row in rows:
                done.update(dict.fromkeys(row.cells, _interpretation(row, plain)))
    return [done[number] for number in range(len(cells))]


def _distinct_rows(cells: Sequence[Cell], prompt: InterpretationPrompt, dtype: torch.dtype) -> list[_Row]:
    """One row per distinct vector: at layer 0 every occurrence of a token has the same."""
    rows: dict[bytes, _Row] = {}
    for number, cell in enumerate(cells):
        if cell.prompt != prompt:
            continue
        vector = cell.vector.detach().to(dtype)
        key = bytes(vector.cpu().contiguous().view(torch.uint8).numpy())
        row = rows.setdefault(key, _Row(vector, []))
        row.cells.append(number)
        if not torch.isfinite(vector).all():
            row.status = f"the vector has NaN or infinity in {dtype}"
    return list(rows.values())


def _interpretation(row: _Row, plain: dict[tuple[int, ...], tuple[float, ...]]) -> Interpretation:
    if row.status != "ok":
        return Interpretation((), (), (), row.status)
    token_ids = tuple(row.token_ids)
    relevancy = tuple(abs(p - q) for p, q in zip(row.probabilities, plain[token_ids]))
    return Interpretation(token_ids, tuple(row.probabilities), relevancy)


def _decode_all(
    model: nn.Module, prompt: InterpretationPrompt, rows: list[_Row], settings: InterpretationSettings, batch_size: int
) -> None:
    """Fill in every row, `batch_size` at a time."""
    if not rows:
        return
    first = min(prompt.insert_locations)
    device = input_device(model)
    shared = empty_cache(model)
    if first:
        ids = torch.tensor([prompt.input_ids[:first]], device=device)
        _, shared = next_logits(model, ids, shared)
    while rows:
        batch, rest = rows[:batch_size], rows[batch_size:]
        try:
            _decode(model, prompt, batch, settings, shared, first)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error) or batch_size == 1:
                raise
            batch_size = max(1, min(batch_size, len(batch)) // 2)
            for row in batch:
                row.token_ids, row.probabilities, row.status = [], [], "ok"
            continue
        rows = rest


def _decode(
    model: nn.Module, prompt: InterpretationPrompt, rows: list[_Row], settings: InterpretationSettings,
    shared: Any, first: int,
) -> None:
    """The loop: the prompt's end under surgery, then one token per step; rows that have ended leave."""
    device = input_device(model)
    ends = _end_of_sequence_ids(model)
    vectors = torch.stack([row.vector.to(device) for row in rows])
    cache = repeat_rows(shared, len(rows)) if first else empty_cache(model)
    ids = torch.tensor([prompt.input_ids[first:]] * len(rows), device=device)
    plan = _plan(model, prompt, vectors, settings, first)
    with surgery(model, plan):
        logits, cache = next_logits(model, ids, cache)
    for step in range(settings.max_new_tokens):
        tokens, probabilities = best_tokens(logits)
        going_on = []
        for index, (row, token, probability) in enumerate(zip(rows, tokens.tolist(), probabilities.tolist())):
            if not 0 <= probability <= 1:
                row.status = f"the logits have NaN or infinity at new token {step}"
                continue
            row.token_ids.append(token)
            row.probabilities.append(probability)
            if token not in ends:
                going_on.append(index)
        if not going_on or step == settings.max_new_tokens - 1:
            return
        if len(going_on) < len(rows):
            kept = torch.tensor(going_on, device=device)
            rows, tokens, cache = [rows[index] for index in going_on], tokens[kept], select_rows(cache, kept)
        logits, cache = next_logits(model, tokens[:, None], cache)


def _plan(
    model: nn.Module, prompt: InterpretationPrompt, vectors: torch.Tensor, settings: InterpretationSettings, cached: int
) -> SurgeryPlan | None:
    """Every row's vector `[rows, hidden]` at all placeholders of the prompt."""
    locations = list(prompt.insert_locations)
    options = {"overlay_strength": settings.overlay_strength, "replacing_mode": settings.replacing_mode}
    return plan_surgery(
        [{settings.insert_layer: (locations, vector.expand(1, len(locations), -1)), **options} for vector in vectors],
        n_layers=len(decoder_layers(model)),
        hidden_size=vectors.shape[-1],
        batch_size=len(vectors),
        prompt_length=len(prompt.input_ids),
        cached_length=cached,
    )


def _end_of_sequence_ids(model: nn.Module) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or [])


def _is_out_of_memory(error: BaseException) -> bool:
    kind = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    return isinstance(error, (MemoryError, kind)) or "can't allocate memory" in str(error)
