"""One chunk of (hidden embedding, interpretation prompt) pairs → tokens, probabilities, relevancy. Fast and exact.

    interpretations = interpret_chunk(model, cells, InterpretationSettings(), batch_size=256)

For every cell the placeholders of its interpretation prompt are overwritten with the cell's vector at the input of one
decoder layer, and the model continues as the settings say: by argmax or at random. The relevancy of a token is how much
the surgery changed its probability, so the same text is read after the same prompt without surgery, too. What makes it
fast:

- the tokens before the first placeholder are the same for every row: their keys and values are computed once;
- logits are made only where they are read, and probabilities under surgery fall out of the decode steps;
- so do those without surgery: each step has, beside the rows of the cells, one row without surgery for every text that
  has been generated so far. Cells with the same text share one (128 cells of every fourth layer, 24.8 tokens each:
  13.3 tokens of such rows per cell; 496 of every layer in one batch: 9.4), and thick matrix multiplies are faster;
- finished rows are dropped from the batch; identical vectors are interpreted once;
- on a CPU: `kernels`.

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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..models.forward import (
    best_tokens,
    end_of_sequence_ids,
    guided_tokens,
    input_device,
    next_logits,
    probabilities_of,
    sampled_tokens,
)
from ..models.kv_cache import check_window
from ..models.layer_inputs import check_evaluation_mode, check_layer_inputs
from ..models.sending import read_tokens, sent
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..prompts.stop import END_OF_SEQUENCE, LENGTH, Stop
from ..surgery.modes import REPLACING_MODES, has_norm
from .batch_size import give_back_freed_memory, in_batches, rows_that_fit
from .cell import Cell, Interpretation
from .insertion import read_shared_part, read_under_surgery, resolved
from .kernels.switch import SelectRows, row_selection
from .sampling import uniform
from .settings import InterpretationSettings

_STEPS_PER_CLEANING = 8
"""Half a percent of the time."""


@dataclass
class _Continuation:
    """What has been generated so far under surgery."""

    seed: int | None = None
    """The cell's."""
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    """The probabilities of the same tokens after the same text without surgery."""
    status: str = "ok"
    ended_by: str = LENGTH

    def append_token(self, token: int, probability: float, without: float) -> bool:
        """Add a token, or note what is wrong with its numbers: then the row is finished."""
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
        numbers out of range, is reported in its cell's `status`; the others are not affected.

    Raises:
        UnsupportedModelError: what the model's layers are given is not one embedding per token.
        ValueError: the model is in training mode, or a batch has no rows.
    """
    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}: give a whole number of rows, at least one")
    check_evaluation_mode(model)
    check_layer_inputs(model)
    done: dict[int, Interpretation] = {}
    with torch.no_grad():
        for prompt in dict.fromkeys(cell.prompt for cell in cells):
            check_window(model, len(prompt.input_ids) + settings.max_new_tokens)
            numbers = [number for number, cell in enumerate(cells) if cell.prompt == prompt]
            same_prompt = [resolved(cells[number], model.dtype, settings) for number in numbers]
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


def _interpret_cells(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    batch_size: int,
) -> list[Interpretation]:
    """Cells of one interpretation prompt. Equal ones are interpreted once: layer 0 repeats tokens."""
    keys = [_key(cell, settings) for cell in cells]
    problems = {key: _problem(cell.vector * settings.gain(cell.depth), settings) for key, cell in zip(keys, cells)}
    distinct = {key: cell for key, cell in zip(keys, cells) if problems[key] is None}
    shared = read_shared_part(model, prompt)

    def decode(batch: Sequence[Cell]) -> list[_Continuation]:
        with row_selection(model) as select_rows:
            return _decode(model, prompt, batch, settings, shared, select_rows)

    generated = in_batches(decode, list(distinct.values()), batch_size)
    results = dict(zip(distinct, map(_interpretation, generated)))
    return [results[key] if key in results else Interpretation((), (), (), str(problems[key])) for key in keys]


def _key(cell: Cell, settings: InterpretationSettings) -> tuple[Any, ...]:
    """Equal for cells whose interpretations are equal."""
    content = bytes(cell.vector.cpu().contiguous().view(torch.uint8).numpy())
    return content, cell.insert_layer, settings.gain(cell.depth), cell.seed


def _problem(vector: torch.Tensor, settings: InterpretationSettings) -> str | None:
    """Why a vector, with its gain, cannot be inserted."""
    if not torch.isfinite(vector).all():
        return f"the vector has NaN or infinity in {vector.dtype}"
    if REPLACING_MODES[settings.replacing_mode].matches_norm and not has_norm(vector).all():
        return f"the vector is zero, or its norm out of range in {vector.dtype}: no direction to scale"
    return None


def _interpretation(generated: _Continuation) -> Interpretation:
    if generated.status != "ok":
        return Interpretation((), (), (), generated.status)
    relevancy = tuple(abs(p - q) for p, q in zip(generated.probabilities, generated.without))
    probabilities = tuple(generated.probabilities)
    return Interpretation(tuple(generated.token_ids), probabilities, relevancy, ended_by=generated.ended_by)


def _decode(
    model: nn.Module,
    prompt: InterpretationPrompt,
    cells: Sequence[Cell],
    settings: InterpretationSettings,
    shared: Any,
    select_rows: SelectRows,
) -> list[_Continuation]:
    """The loop: the rest of the prompt under surgery, then one token per step; finished rows are dropped.

    Behind the rows of the cells come rows without surgery: one for each of the texts that those have generated so far.
    """
    device = input_device(model)
    ending = _Ending(end_of_sequence_ids(model), prompt.stop)
    generated = [_Continuation(cell.seed) for cell in cells]
    rows, beside = generated, [0] * len(generated)  # beside: which row without surgery has read the same text
    logits, cache = read_under_surgery(model, prompt, cells, settings, shared, untouched=1)
    for step in range(settings.max_new_tokens):
        texts_read = sent(beside, device)
        best, probabilities = _choose(logits[: len(rows)], logits[len(rows) :], texts_read, rows, settings)
        without = probabilities_of(logits[len(rows) :], texts_read, best)
        tokens, both = read_tokens(best, probabilities, without)  # the host waits for the device here alone
        continuing = [
            index
            for index, numbers in enumerate(zip(tokens, *both))
            if rows[index].append_token(*numbers) and not ending.ends(rows[index])
        ]
        if not continuing or step == settings.max_new_tokens - 1:
            break
        texts = [(beside[index], tokens[index]) for index in continuing]  # the text before, the token
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        kept = [*continuing, *(len(rows) + before for before, _ in numbers)]
        kept += [min(row, len(logits) - 1) for row in range(len(kept), _rounded(len(kept)))]  # nothing reads these
        if kept != list(range(len(logits))):
            cache = select_rows(cache, sent(kept, device))
        rows, beside = [rows[index] for index in continuing], [numbers[text] for text in texts]
        tokens = [token for _, token in (*texts, *numbers)]
        next_tokens = sent(tokens + tokens[-1:] * (len(kept) - len(tokens)), device)[:, None]
        del logits  # of a large vocabulary there is no room for two
        if step % _STEPS_PER_CLEANING == 0:
            give_back_freed_memory()
        logits, cache = next_logits(model, next_tokens, cache)  # noqa: RUF059 (the next step does use them)
    return generated


def _choose(
    logits: torch.Tensor,
    without: torch.Tensor,
    beside: torch.Tensor,
    rows: Sequence[_Continuation],
    settings: InterpretationSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row and its probability, guided by what the rows without surgery make of the same text."""
    if settings.sampling is not None:
        return sampled_tokens(
            logits,
            without,
            beside,
            [uniform(row.seed or 0, len(row.token_ids)) for row in rows],
            guidance=settings.guidance,
            plausibility=settings.plausibility,
            temperature=settings.sampling.temperature,
            top_p=settings.sampling.top_p,
        )
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
