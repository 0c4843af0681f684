"""One chunk of (hidden embedding, interpretation prompt) pairs → tokens, probabilities, relevancy. Fast and exact.

    interpretations = interpret_chunk(model, cells, InterpretationSettings(), batch_size=256)

For every cell the placeholders of its interpretation prompt are overwritten with the cell's vector at the input of one
decoder layer, and the model continues by raw argmax. The relevancy of a token is how much the surgery changed its
probability, so the same text is read after the same prompt without surgery, too. What makes it fast:

- the tokens before the first placeholder are the same for every row: their keys and values are computed once;
- logits are made only where they are read, and probabilities under surgery fall out of the decode steps;
- so do those without surgery: each step has, beside the rows of the cells, one row without surgery for every text that
  has been generated so far. Cells with the same text share one (128 cells of every fourth layer, 24.8 tokens each:
  13.3 tokens of such rows per cell; 496 of every layer in one batch: 9.4), and thick matrix multiplies are faster;
- rows that have ended leave the batch; identical vectors are interpreted once;
- on a CPU: `attention`, `linear` and `recycling`.

Cells are grouped by interpretation prompt, so that all rows of a batch have the same length at every step: no padding,
no attention mask, and the numbers of a row do not depend on its neighbours' lengths.

What was left out, judged by measured costs of token passes on a CPU with 64 to 256 rows:

- Waiting cells that take the places of rows that have ended, and several interpretation prompts in one batch: rows of
  unequal length need a mask and padding, and a chunk fills batches of one prompt.
- The text of the layer below as a draft, verified in one pass: 34 % of its tokens were accepted on a grid of 496 cells,
  so a cell would read 19 tokens more, while a token in a thick pass costs at most 15 % less than in a decode step.
- Weights packed once for the processor: 3 to 5 % less time in bfloat16, for a second copy of the weights.
- Weights times transposed rows, which spares packing the weights: in bfloat16 a quarter less time with 64 rows, a sixth
  with 128, 4 % with 176 to 256, and turning the results back costs as much from 128 on.
- A compiled decode step: what it could fuse, all but matrix multiplies and the cache, is a sixth of a step in bfloat16
  and less in float32, and it needs a compiler on the user's machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..models.families import decoder_layers
from ..models.forward import (
    best_tokens,
    end_of_sequence_ids,
    guided_tokens,
    input_device,
    next_logits,
    probabilities_of,
)
from ..models.kv_cache import check_window, empty_cache, repeat_rows
from ..models.layer_spec import SAME, InsertLayer, insert_layer_of
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..prompts.stop import END_OF_SEQUENCE, LENGTH, Stop
from ..surgery.hooks import SurgeryPlan, plan_surgery, surgery
from ..surgery.modes import REPLACING_MODES, has_norm
from .batch_size import give_back_freed_memory, in_batches, rows_that_fit
from .kernels.attention import one_query_attention
from .kernels.kv_buffers import GrowingBuffers
from .kernels.linear import one_dnn_linear
from .kernels.overrides import FunctionOverrides

_STEPS_PER_CLEANING = 8
"""Half a percent of the time."""


@dataclass(frozen=True)
class Cell:
    """One thing to interpret."""

    vector: torch.Tensor
    """The hidden embedding, `[hidden]`, on any device and of any floating dtype."""
    prompt: InterpretationPrompt
    """Its placeholders are overwritten with the vector."""
    insert_layer: InsertLayer | None = None
    """At the input of which decoder layer; None: the settings'."""


@dataclass(frozen=True)
class InterpretationSettings:
    """How to interpret; the same for every cell of a run."""

    insert_layer: InsertLayer = 1
    """The decoder layer at whose input the vector is inserted; several: at each of them; "same": each cell's own."""
    replacing_mode: str = "normalized"
    """How: one of `modes.REPLACING_MODES`."""
    overlay_strength: float | tuple[float, ...] = 1.0
    """Weight of the vector; several: one per placeholder of the interpretation prompt."""
    max_new_tokens: int = 30
    """An interpretation ends here at the latest; else with its first end-of-sequence token, or as its prompt says."""
    guidance: float = 0.0
    """γ ≥ 0: each token is the best by log p + γ · (log p − log q) among the plausible ones, p with the vector inserted
    and q after the same text and the untouched prompt. 0: raw argmax. Known as contrastive decoding (Li and others
    2022, arXiv:2210.15097), context-aware decoding (Shi and others 2023, 2305.14739) and classifier-free guidance for
    language models (Sanchez and others 2023, 2306.17806)."""
    plausibility: float = 0.1
    """With guidance, tokens with p below so many times the largest are left out (the bound of contrastive decoding):
    what is improbable with and without the vector may have any ratio."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "insert_layer", insert_layer_of(self.insert_layer))
        if self.replacing_mode not in tuple(REPLACING_MODES):
            raise ValueError(f"replacing_mode is {self.replacing_mode!r}: use one of {', '.join(REPLACING_MODES)}")
        given = self.overlay_strength
        given = given.tolist() if isinstance(given, torch.Tensor) else given
        object.__setattr__(self, "overlay_strength", tuple(given) if isinstance(given, Sequence) else given)
        for strength in given if isinstance(given, Sequence) else [given]:
            if problem := REPLACING_MODES[self.replacing_mode].strength_problem(strength):
                raise ValueError(f"overlay_strength is {strength}: {problem}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: at least one token is needed")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}: it must be finite and not less than 0 (0: raw argmax)")
        if not 0 <= self.plausibility <= 1:
            raise ValueError(f"plausibility is {self.plausibility}: it must be in [0, 1]")


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


@dataclass
class _Continuation:
    """What has been generated so far under surgery."""

    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    """The probabilities of the same tokens after the same text without surgery."""
    status: str = "ok"
    ended_by: str = LENGTH

    def append_token(self, token: int, probability: float, without: float) -> bool:
        """Add a token, or note what is wrong with its numbers: then there is no going on."""
        for name, number in (("logits", probability), ("logits without surgery", without)):
            if not 0 <= number <= 1:
                self.status = f"the {name} have NaN or infinity at new token {len(self.token_ids)}"
                return False
        self.token_ids.append(token)
        self.probabilities.append(probability)
        self.without.append(without)
        return True


def interpret_chunk(
    model: nn.Module, cells: Sequence[Cell], settings: InterpretationSettings, *, batch_size: int
) -> list[Interpretation]:
    """Interpret some vectors; the result depends on nothing but the arguments.

    Args:
        model: a causal language model in evaluation mode, on any device or spread over several.
        cells: in any order; several interpretation prompts may be mixed.
        settings: the same for all cells.
        batch_size: cells that are decoded at once; halved when memory runs out.

    Returns:
        one interpretation per cell, in the order of the cells. A vector that is not finite, or that drives the model's
        numbers out of range, is told in its cell's `status`; the others go on.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: at least one row is needed")
    done: dict[int, Interpretation] = {}
    with torch.no_grad():
        for prompt in dict.fromkeys(cell.prompt for cell in cells):
            check_window(model, len(prompt.input_ids) + settings.max_new_tokens)
            numbers = [number for number, cell in enumerate(cells) if cell.prompt == prompt]
            same_prompt = [_resolved(cells[number], model.dtype, settings) for number in numbers]
            done.update(zip(numbers, _interpret_cells(model, prompt, same_prompt, settings, batch_size)))
    return [done[number] for number in range(len(cells))]


def resolve_batch_size(
    model: nn.Module,
    prompts: Sequence[InterpretationPrompt],
    settings: InterpretationSettings,
    *,
    memory: int | None = None,
) -> int:
    """The batch size for a run, resolved once: a power of two of cells that fit into `memory` bytes.

    Without `memory` a share of what is free counts; see `batch_size.rows_that_fit`.
    """
    return rows_that_fit(model, prompts, settings.max_new_tokens, memory=memory)


def _resolved(cell: Cell, dtype: torch.dtype, settings: InterpretationSettings) -> Cell:
    """The cell as the model takes it: its vector in the model's type, its own layer or the settings'."""
    layer = settings.insert_layer if cell.insert_layer is None else cell.insert_layer
    if layer == SAME:
        raise ValueError(f"insert_layer is {SAME}, and a cell does not say which layer it came from")
    return replace(cell, vector=cell.vector.detach().to(dtype), insert_layer=layer)


def _interpret_cells(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    batch_size: int,
) -> list[Interpretation]:
    """Cells of one interpretation prompt. Equal ones are interpreted once: layer 0 repeats tokens."""
    keys = [(bytes(cell.vector.cpu().contiguous().view(torch.uint8).numpy()), cell.insert_layer) for cell in cells]
    problems = {key: _problem(cell.vector, settings) for key, cell in zip(keys, cells)}
    distinct = {key: cell for key, cell in zip(keys, cells) if problems[key] is None}
    shared = read_shared_part(model, prompt)

    def decode(batch: Sequence[Cell]) -> list[_Continuation]:
        memory = GrowingBuffers()
        attention = {functional.scaled_dot_product_attention: one_query_attention(memory.whole)}
        with FunctionOverrides({**attention, functional.linear: one_dnn_linear, torch.cat: memory.append}):
            return _decode(model, prompt, batch, settings, shared, memory)

    generated = in_batches(decode, list(distinct.values()), batch_size)
    results = dict(zip(distinct, map(_interpretation, generated)))
    return [results[key] if key in results else Interpretation((), (), (), str(problems[key])) for key in keys]


def _problem(vector: torch.Tensor, settings: InterpretationSettings) -> str | None:
    """Why a vector cannot be inserted."""
    if not torch.isfinite(vector).all():
        return f"the vector has NaN or infinity in {vector.dtype}"
    if REPLACING_MODES[settings.replacing_mode].matches_norm and not has_norm(vector):
        return f"the vector is zero, or its norm out of range in {vector.dtype}: no direction to scale"
    return None


def _interpretation(generated: _Continuation) -> Interpretation:
    if generated.status != "ok":
        return Interpretation((), (), (), generated.status)
    relevancy = tuple(abs(p - q) for p, q in zip(generated.probabilities, generated.without))
    probabilities = tuple(generated.probabilities)
    return Interpretation(tuple(generated.token_ids), probabilities, relevancy, ended_by=generated.ended_by)


def read_shared_part(model: nn.Module, prompt: InterpretationPrompt) -> Any:
    """The cache of the tokens before the first placeholder, one row; None where there are none."""
    shared = prompt.input_ids[: min(prompt.insert_locations)]
    if not shared:
        return None
    return next_logits(model, torch.tensor([shared], device=input_device(model)), empty_cache(model))[1]


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
    ids = torch.tensor([rest] * rows, device=input_device(model))
    cache = empty_cache(model) if shared is None else repeat_rows(shared, rows)
    with surgery(model, _plan(model, prompt, cells, settings, untouched)):
        return next_logits(model, ids, cache)


def _decode(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    shared: Any,
    memory: GrowingBuffers,
) -> list[_Continuation]:
    """The loop: the rest of the prompt under surgery, then one token per step; rows that have ended leave.

    Behind the rows of the cells come rows without surgery: one for each of the texts that those have generated so far.
    """
    device = input_device(model)
    ending = _Ending(end_of_sequence_ids(model), prompt.stop)
    generated = [_Continuation() for _ in cells]
    rows, beside = generated, [0] * len(generated)  # beside: which row without surgery has read the same text
    logits, cache = read_under_surgery(model, prompt, cells, settings, shared, untouched=1)
    for step in range(settings.max_new_tokens):
        texts_read = torch.tensor(beside, device=device)
        best, probabilities = _choose(logits[: len(rows)], logits[len(rows) :], texts_read, settings)
        without = probabilities_of(logits[len(rows) :], texts_read, best)
        tokens = best.tolist()
        going_on = [
            index
            for index, numbers in enumerate(zip(tokens, probabilities.tolist(), without.tolist()))
            if rows[index].append_token(*numbers) and not ending.ends(rows[index])
        ]
        if not going_on or step == settings.max_new_tokens - 1:
            break
        texts = [(beside[index], tokens[index]) for index in going_on]  # the text before, the token
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        kept = [*going_on, *(len(rows) + before for before, _ in numbers)]
        kept += [min(row, len(logits) - 1) for row in range(len(kept), _rounded(len(kept)))]  # nothing reads these
        if kept != list(range(len(logits))):
            cache = memory.select_rows(cache, torch.tensor(kept, device=device))
        rows, beside = [rows[index] for index in going_on], [numbers[text] for text in texts]
        tokens = [token for _, token in (*texts, *numbers)]
        next_tokens = torch.tensor(tokens + tokens[-1:] * (len(kept) - len(tokens)), device=device)[:, None]
        del logits  # of a large vocabulary there is no room for two
        if step % _STEPS_PER_CLEANING == 0:
            give_back_freed_memory()
        logits, cache = next_logits(model, next_tokens, cache)  # noqa: RUF059 (the next step does use them)
    return generated


def _choose(
    logits: torch.Tensor, without: torch.Tensor, beside: torch.Tensor, settings: InterpretationSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row and its probability, guided by what the rows without surgery make of the same text."""
    if settings.guidance == 0:
        return best_tokens(logits)
    return guided_tokens(logits, without, beside, settings.guidance, settings.plausibility)


class _Ending:
    """What ends interpretations of one prompt. Rows often generate the same text, which is looked at once."""

    def __init__(self, end_of_sequence: frozenset[int], stop: Stop | None) -> None:
        self._end_of_sequence = end_of_sequence
        self._reached = None if stop is None else functools.cache(stop.reached_by)

    def ends(self, row: _Continuation) -> bool:
        """Whether the row's last token ends it; notes by what."""
        if row.token_ids[-1] in self._end_of_sequence:
            row.ended_by = END_OF_SEQUENCE
        elif self._reached is not None and (by := self._reached(tuple(row.token_ids))) is not None:
            row.ended_by = by
        return row.ended_by != LENGTH


def _rounded(rows: int) -> int:
    """The number of rows, rounded up to five binary digits, so that a few numbers of rows recur.

    oneDNN makes code for each size of a matrix that it meets, and keeps that of a thousand: 500 sizes took 1 GB.
    """
    step = 1 << max(0, rows.bit_length() - 5)
    return -(-rows // step) * step


def _plan(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    untouched: int,
) -> SurgeryPlan | None:
    """Every row's vector at all placeholders of the prompt; what comes before the first is in the cache."""
    locations = list(prompt.insert_locations)
    options = {"overlay_strength": settings.overlay_strength, "replacing_mode": settings.replacing_mode}
    return plan_surgery(
        [*(_insert_info(cell, locations) | options for cell in cells), *[{}] * untouched],
        n_layers=len(decoder_layers(model)),
        hidden_size=cells[0].vector.shape[-1],
        batch_size=len(cells) + untouched,
        prompt_length=len(prompt.input_ids),
        cached_length=locations[0],
    )


def _insert_info(cell: Cell, locations: list[int]) -> dict[Any, Any]:
    layers = cell.insert_layer if isinstance(cell.insert_layer, tuple) else (cell.insert_layer,)
    return {layer: (locations, cell.vector.expand(1, len(locations), -1)) for layer in layers}
