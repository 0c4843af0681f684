"""Does a process get slower the more cells it has to interpret? A tiny random model, so that little else takes time.

Runs of 1,000 cells take turns with the tenths of one large run, so that both meet the same machine.

    python scripts/benchmark_cells.py                 # 1,000 and 100,000 cells: minutes
    python scripts/benchmark_cells.py --cells 1000000
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.results.csv_table import csv_rows
from transformers.interpretation.runs.grid import Plan
from transformers.interpretation.runs.job import Job
from transformers.interpretation.runs.limits import Limits
from transformers.interpretation.runs.planning import make_plan
from transformers.interpretation.runs.request import CHUNK_CELLS

FEW = 1_000
SETTINGS = InterpretationSettings(max_new_tokens=2)
LETTERS = "abcdefghijklmnopqrstuvwxyz _"
PROMPT_LETTERS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, metavar="N", help="about so many (default: %(default)s)")
    options = parser.parse_args(arguments)
    tokenizer = letter_tokenizer()
    model = tiny_model()
    few, many = (
        Job(model, tokenizer, plan_of(model, tokenizer, number), SETTINGS, batch_size=CHUNK_CELLS)
        for number in (FEW, options.cells)
    )
    carry_out(few, range(few.plan.n_chunks))  # warm
    rates: list[float] = []
    rows, seconds = 0, 0.0
    tenth = -(-many.plan.n_chunks // 10)
    for first in range(0, many.plan.n_chunks, tenth):
        found, took = carry_out(few, range(few.plan.n_chunks))
        rates.append(found / took)
        found, took = carry_out(many, range(first, min(first + tenth, many.plan.n_chunks)))
        rows, seconds = rows + found, seconds + took
        print(f"{rows:,} cells: {rows / seconds:,.0f}/s", file=sys.stderr)
    usual = statistics.median(rates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{few.plan.n_cells:,} cells: {usual:,.0f}/s (median of {len(rates)})")
    print(f"{rows:,} cells: {rows / seconds:,.0f}/s, {rows / seconds / usual:.2f} times as fast")
    print(f"peak memory {peak:,.0f} MB")
    return 0


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token per letter."""
    backend = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token="_"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def tiny_model() -> torch.nn.Module:
    """Two layers of random weights."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(LETTERS), eos_token_id=None, **size)).eval()


def plan_of(model: torch.nn.Module, tokenizer: Any, cells: int) -> Plan:
    """Prompts of random letters, every token at every layer: at least that many cells."""
    source = random.Random(0)
    count = -(-cells // (PROMPT_LETTERS * (model.config.num_hidden_layers + 1)))
    texts = ["".join(source.choice(LETTERS) for _ in range(PROMPT_LETTERS)) for _ in range(count)]
    return make_plan(
        tokenizer,
        [Example(f"random_{number}", text, raw=True) for number, text in enumerate(texts, start=1)],
        [InterpretationPromptSpec("short", text="it is _")],
        Limits.of(model),
        SETTINGS,
        layers=Selection("all"),
        tokens=Selection("all"),
        prompt_output_tokens=0,
        chunk_cells=CHUNK_CELLS,
    )


def carry_out(job: Job, chunks: Sequence[int]) -> tuple[int, float]:
    """Interpretations made, as lines of CSV, and the seconds that they took."""
    rows = 0
    began = time.monotonic()
    for chunk in chunks:
        records = job.records(chunk)
        csv_rows(records)
        rows += len(records)
    return rows, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
