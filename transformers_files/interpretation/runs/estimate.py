"""What a plan will cost, from its numbers alone: nothing is loaded and nothing runs.

    estimate = estimate_plan(plan, settings, skeleton, tokenizer, dtype=torch.bfloat16, batch_size=256)
    print(*estimate.lines(), sep="\\n")
    print(estimate.duration(Rate.read("250TFLOP/s"), devices=8))

Tokens and operations are upper bounds, reached where no text ends early and no two cells generate the same: a text
that ends early is decoded no further, identical vectors are interpreted once, and equal prefixes are run once without
surgery (about half of that part on a grid of one chat prompt). An operation is a multiplication or an addition in a
matrix product; attention counts every pair of a pass, masked ones included; a mapping's own product, a ten-thousandth,
does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..engine.settings import InterpretationSettings
from ..models.flops import ModelSize, Rate, Work
from ..models.token_text import token_strings
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.csv_table import csv_header, csv_rows
from ..results.record import Record
from .grid import Plan, Source
from .source_activations import layers_at_once
from .vector_plan import VectorPlan

_LETTERS_PER_TOKEN = 4
_RELEVANCY, _PROBABILITY = 0.123456, 0.987654
_NONE = Work()


@dataclass(frozen=True)
class WorkEstimate:
    """See the module's docstring."""

    size: ModelSize
    source_size: ModelSize | None
    """The size of the model that reads the source prompts, where that is another one."""
    cells: int
    chunks: int
    batches: int
    batch_size: int
    sources: Work
    """Running the source prompts, generating after them, and capturing their hidden states."""
    strengths: Work
    """Trying norms for vectors."""
    prompts: Work
    """Running the interpretation prompts under surgery."""
    decoding: Work
    plain: Work
    """Running prompts and interpretations without surgery."""
    weight_bytes: int
    cache_bytes: int
    """The cache of one batch at its longest, as if no two cells generated the same."""
    csv_bytes: int

    @property
    def work(self) -> Work:
        return self.sources + self.strengths + self.prompts + self.decoding + self.plain

    @property
    def operations(self) -> int:
        interpreting = self.strengths + self.prompts + self.decoding + self.plain
        return self.sources.operations(self.source_size or self.size) + interpreting.operations(self.size)

    def hours(self, rate: Rate, devices: int) -> float:
        """If the work is divided evenly."""
        return (self.operations if rate.operations else self.cells) / rate.per_second / devices / 3600

    def duration(self, rate: Rate, devices: int) -> str:
        """The line about `hours`."""
        hours = self.hours(rate, devices)
        time = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
        return f"time        {time} on {devices} {'devices' if devices > 1 else 'device'} at {rate} each"

    def lines(self) -> list[str]:
        """The estimate as printed."""
        parts = (self.sources, self.prompts, self.decoding, self.plain)
        other = f", the source model's {self.source_size.parameters:,}" if self.source_size else ""
        return [
            f"cells       {self.cells:,}; chunks {self.chunks:,}",
            f"batches     {self.batches:,} of at most {self.batch_size} rows",
            "tokens      at most {:,}: source prompts {:,}, interpretation prompts {:,}, decoding {:,}, without "
            "surgery {:,}".format(self.work.tokens, *(part.tokens for part in parts)),
            f"operations  at most {self.operations:.2e} FLOP",
            *([] if self.strengths == _NONE else [self._strengths_line()]),
            f"memory      weights {_size(self.weight_bytes)} ({self.size.parameters:,} parameters{other}), "
            f"key/value cache of a batch {_size(self.cache_bytes)}",
            f"result      {_size(self.csv_bytes)} as CSV",
        ]

    def _strengths_line(self) -> str:
        operations = self.strengths.operations(self.size)
        share = 100 * operations / self.operations
        tokens = self.strengths.tokens
        return f"strengths   to choose them, {operations:.2e} FLOP of these ({share:.0f} %), {tokens:,} tokens"


def estimate_plan(
    plan: Plan,
    settings: InterpretationSettings,
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype,
    batch_size: int,
    source_model: nn.Module | None = None,
) -> WorkEstimate:
    """What it takes to carry out a plan in one process; each of several runs the source prompts again.

    model, source_model: with or without weights; the second reads the source prompts, where it is another one.
    tokenizer: of the one that reads them. batch_size: rows that are decoded at once.
    """
    size = ModelSize.of(model)
    source_size = None if source_model is None else ModelSize.of(source_model)
    return estimate_cells(
        plan,
        settings,
        size,
        dtype=dtype,
        batch_size=batch_size,
        source_size=source_size,
        sources=sum((_source_work(plan, source, source_size or size) for source in plan.sources), Work()),
        row_bytes=sum(_csv_bytes(plan, source, settings, tokenizer) for source in plan.sources),
    )


def estimate_cells(
    plan: Plan | VectorPlan,
    settings: InterpretationSettings,
    size: ModelSize,
    *,
    dtype: torch.dtype,
    batch_size: int,
    row_bytes: int,
    source_size: ModelSize | None = None,
    sources: Work = _NONE,
    strengths: Work = _NONE,
) -> WorkEstimate:
    """What it takes to interpret the cells of a plan of any kind. row_bytes: of all rows as CSV."""
    parameters = size.parameters + (source_size.parameters if source_size else 0)
    new = settings.max_new_tokens
    batches = 0
    prompts = plain = Work()
    totals: Counter[InterpretationPrompt] = Counter()
    for cells_of in cells_by_prompt(plan):
        totals += cells_of
        for prompt, cells in cells_of.items():
            first, length = min(prompt.insert_locations), len(prompt.input_ids)
            batches_of = -(-cells // batch_size)
            batches += batches_of
            prompts += read(first, logits=bool(first)) + read(length - first, after=first) * cells
            plain += read(length - first, after=first) * batches_of
    after = [_decoding(len(prompt.input_ids), new) * cells for prompt, cells in totals.items()]
    decoding = sum(after, Work())
    longest = max((len(prompt.input_ids) for prompt in plan.all_prompts), default=0) + new
    return WorkEstimate(
        size=size,
        source_size=source_size,
        cells=plan.n_cells,
        chunks=plan.n_chunks,
        batches=batches,
        batch_size=batch_size,
        sources=sources,
        strengths=strengths,
        prompts=prompts,
        decoding=decoding,
        plain=plain + decoding,
        weight_bytes=parameters * dtype.itemsize,
        cache_bytes=2 * min(batch_size, plan.chunk_cells, plan.n_cells) * longest * size.cached * dtype.itemsize,
        csv_bytes=len(csv_header()) + row_bytes,
    )


def read(tokens: int, *, after: int = 0, logits: int = 1) -> Work:
    """One row of a pass of `tokens` tokens after those of a cache."""
    return Work(tokens, int(logits), tokens * (after + tokens))


def _decoding(prompt_length: int, new_tokens: int) -> Work:
    """A row's tokens after its first, one by one."""
    steps = new_tokens - 1
    return Work(steps, steps, sum(prompt_length + step for step in range(1, new_tokens)))


def _source_work(plan: Plan, source: Source, size: ModelSize) -> Work:
    length, new = len(source.input_ids), plan.prompt_output_tokens
    own_output = read(length) + _decoding(length, new) if new else Work()
    blocks = -(-len(plan.layers) // layers_at_once(source.n_vectors, size.hidden, plan.captured_bytes))
    passes = blocks if blocks == 1 else blocks * len(plan.prompts)  # cells go through all layers prompt by prompt
    states = read(length + new, logits=0)
    if source.minus is not None:
        states += read(len(source.minus.input_ids), logits=0)
    return own_output + states * passes


def cells_by_prompt(plan: Plan | VectorPlan) -> Iterator[Counter[InterpretationPrompt]]:
    """For each chunk the number of its cells by their interpretation prompt."""
    runs, left = plan.prompt_runs(), 0
    for number in range(plan.n_chunks):
        chunk: Counter[InterpretationPrompt] = Counter()
        room = plan.chunk_size(number)
        while room:
            if not left:
                prompt, left = next(runs)
            taken = min(left, room)
            chunk[prompt] += taken
            left, room = left - taken, room - taken
        yield chunk


def _csv_bytes(plan: Plan, source: Source, settings: InterpretationSettings, tokenizer: Tokenizer) -> int:
    """Of all rows of a source, as if each interpretation had the most tokens, of usual lengths."""
    rows = [_stand_in(plan, source, prompt, settings, tokenizer) for prompt in plan.prompts]
    return len(csv_rows(rows).encode()) * len(plan.layers) * len(source.tokens) * plan.per_token


def _stand_in(
    plan: Plan, source: Source, prompt: InterpretationPrompt, settings: InterpretationSettings, tokenizer: Tokenizer
) -> Record:
    tokens = token_strings(tokenizer, source.input_ids)
    return usual_record(
        prompt,
        settings,
        name=source.example.name,
        category=source.example.category,
        prompt=source.text,
        prompt_token_list=tokens,
        layer_idx=plan.layers[-1],
        token_idx=len(tokens) - 1,
        current_token=tokens[-1],
        token_source="prompt",
        answer=source.example.answer,
        sample=plan.samples and plan.samples - 1,
    )


def usual_record(through: InterpretationPrompt, settings: InterpretationSettings, **source: Any) -> Record:
    """A record of an interpretation through a prompt, with the most tokens, of usual lengths; with other fields."""
    new = settings.max_new_tokens
    return Record(
        prompt_output="",
        repeat_prompt=through.text,
        repeat_prompt_name=through.name,
        question=through.question,
        interpretation=(max(through.input_ids),) * new,
        interpretation_text="x" * _LETTERS_PER_TOKEN * new,
        interpretation_weights=(_RELEVANCY,) * new,
        interpretation_prob=(_PROBABILITY,) * new,
        insert_layer=settings.insert_layer,
        insert_place=settings.insert_place,
        **source,
    )


def _size(number: float) -> str:
    """Bytes in a unit for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
