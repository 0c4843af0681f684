"""How fast the engine is, compared with a baseline on the same machine in the same run.

    python scripts/benchmark.py                      # minutes: a table
    python scripts/benchmark.py --quick              # under a minute: one round of few short texts
    python scripts/benchmark.py --json FILE          # also the numbers
    python scripts/benchmark.py --guidance           # what guidance costs per token, and nothing else

Three ways to the same interpretations, with relevancy, of hidden embeddings of the embedded model:

- baseline: a padded batch of 64 through `generate_interpret`, then one full pass with and one without surgery, with
  attentions, hidden states and a softmax over the vocabulary at every position, as programs of this kind do it;
- lean: the same three calls without attentions and hidden states, at its best batch size and attention;
- engine: `transformers.interpretation.engine.decode`, at the batch size that it chooses itself.

Each way runs in a process of its own, so that each has its own peak memory: torch and the weights are part of it,
loading them is not. They take turns over several rounds; ratios are taken within a round, and the table shows their
medians. The cells are all tokens of every fourth layer; then, once, of every layer, where neighbours more often
generate the same. The interpretation prompt is fixed, 22 tokens, three of them before its first placeholder.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common.benchmark_guidance import guidance_cost, guidance_line
from common.benchmark_table import DTYPES, WAYS, machine, table
from common.benchmark_ways import FACTS, NEW_TOKENS, Outcome, Process, Result
from common.program import REFUSED, check_files, fail
from transformers.interpretation.models.loading import resolve_dtype

QUESTION = "What is the capital of France?"
LONG_QUESTION = " ".join(
    f"Tell me about {place} in {year}: who lived there, what did they eat, and what did they believe?"
    for place, year in [("Rome", 100), ("Kyoto", 900), ("Cairo", 1300), ("Lima", 1600), ("Oslo", 1850), ("Accra", 1950)]
)
LAYERS, TOKENS, LONG_TOKENS = 31, 16, 140
"""The grids of the two questions: layers, and tokens of each (of the long one, those that are drawn from)."""
USUAL_BATCH = 64
TIE = 1e-4
"""Two best logits nearer than this may change places with the last bits of float32."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--quick", action="store_true", help="under a minute: one round of few short texts")
    parser.add_argument("--guidance", action="store_true", help="only what guidance costs per token")
    parser.add_argument("--rounds", type=int, help="turns of each way (default: 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        check_files({} if options.json is None else {"the numbers": options.json}, {"the facts": FACTS})
    except ValueError as error:
        return fail(error, REFUSED)
    new_tokens = 8 if options.quick else NEW_TOKENS
    rounds = options.rounds or (1 if options.quick else 3)
    cells = cells_of_layers([16])[:8] if options.quick else cells_of_layers(range(0, LAYERS, 4))

    if options.guidance:
        engines = {dtype: Process("engine", dtype, options.threads, new_tokens) for dtype in DTYPES}
        costs = {dtype: guidance_cost(engine, QUESTION, cells, rounds) for dtype, engine in engines.items()}
        for engine in engines.values():
            engine.stop()
        print("\n".join(guidance_line(dtype, cost) for dtype, cost in costs.items()))
        write(options.json, {"machine": machine(options.threads), "cells": len(cells), "guidance": costs})
        return 0

    ways = {(name, dtype): Process(name, dtype, options.threads, new_tokens) for dtype in DTYPES for name in WAYS}
    lean = dict.fromkeys(DTYPES, USUAL_BATCH)
    if not options.quick:
        for dtype in DTYPES:
            ways["lean", dtype], lean[dtype] = best_lean(ways["lean", dtype], dtype, cells, options.threads)
    outcomes = take_turns(ways, lean, cells, rounds)
    shipped = str(resolve_dtype("auto", "cpu")).removeprefix("torch.")

    report: dict[str, Any] = {"machine": machine(options.threads), "cells": len(cells), "rounds": rounds, "lean": lean}
    for dtype in DTYPES:
        report[dtype] = summary(ways, outcomes, dtype)
    report["as_shipped"] = {
        "dtype": shipped,
        "speedup": speedup(outcomes, ("baseline", "float32"), ("engine", shipped)),
        "memory_ratio": report[shipped]["peak_memory"]["engine"] / report["float32"]["peak_memory"]["baseline"],
    }
    sizes, repeats = ((4, 8), 1) if options.quick else ((256, 4096), 3)
    report["flatness"], report["flatness_memory"] = flatness(ways["engine", shipped], sizes, repeats)
    engines = {dtype: ways["engine", dtype] for dtype in DTYPES}
    report["guidance"] = {dtype: guidance_cost(engine, QUESTION, cells, rounds) for dtype, engine in engines.items()}
    report["matmul_fraction"] = {dtype: matmul_fraction(ways, outcomes, dtype, cells) for dtype in DTYPES}
    if not options.quick:
        report["whole_grid"] = whole_grid(ways, shipped)
        for dtype in DTYPES:
            report[dtype]["recovered_answers"] = ways["engine", dtype].call("recovered_answers", 40)
    for process in ways.values():
        process.stop()
    print(table(report))
    write(options.json, report)
    return 0


def write(place: Path | None, report: dict[str, Any]) -> None:
    """The numbers, if a file was named for them."""
    if place:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def cells_of_layers(layers: Sequence[int]) -> list[int]:
    """All tokens of these layers, as numbers of cells of the question's grid."""
    return [layer * TOKENS + token for layer in layers for token in range(TOKENS)]


def best_lean(process: Process, dtype: str, cells: Sequence[int], threads: int) -> tuple[Process, int]:
    """The lean way's best batch size, and the better of the library's fused and plain attention."""
    other = Process("lean-eager", dtype, threads)
    trials = []
    for candidate in (process, other):
        candidate.call("run", QUESTION, cells[:4], 4)  # warm
        for batch in (32, 64, 128):
            seconds = candidate.call("run", QUESTION, cells, batch).seconds
            print(f"lean {dtype}, batch {batch}: {seconds:.1f} s", file=sys.stderr)
            trials.append((seconds, batch, candidate))
    _, batch, best = min(trials, key=lambda trial: trial[0])
    (other if best is process else process).stop()
    return best, batch


def take_turns(
    ways: dict[tuple[str, str], Process], lean: dict[str, int], cells: Sequence[int], rounds: int
) -> dict[tuple[str, str], list[Outcome]]:
    """Every way once per round, one after the other, after a warm-up of a few cells."""
    outcomes: dict[tuple[str, str], list[Outcome]] = {way: [] for way in ways}
    for process in ways.values():
        process.call("run", QUESTION, cells[:4], 4)
    for number in range(rounds):
        for (name, dtype), process in ways.items():
            outcome = process.call("run", QUESTION, cells, lean[dtype] if name == "lean" else USUAL_BATCH)
            print(f"round {number + 1}, {name} {dtype}: {outcome.seconds:.1f} s", file=sys.stderr)
            outcomes[name, dtype].append(outcome)
    return outcomes


def speedup(outcomes: dict[tuple[str, str], list[Outcome]], slow: tuple[str, str], fast: tuple[str, str]) -> float:
    """Median over the rounds of the ratio of times within a round."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(outcomes[slow], outcomes[fast]))


def summary(
    ways: dict[tuple[str, str], Process], outcomes: dict[tuple[str, str], list[Outcome]], dtype: str
) -> dict[str, Any]:
    """The result of one dtype's rounds."""
    baseline, engine = outcomes["baseline", dtype], outcomes["engine", dtype]
    memory = {name: ways[name, dtype].call("peak_memory") for name in WAYS}
    found = {
        "cells_per_second": {
            name: statistics.median(len(outcome.results) / outcome.seconds for outcome in outcomes[name, dtype])
            for name in WAYS
        },
        "speedup": speedup(outcomes, ("baseline", dtype), ("engine", dtype)),
        "speedup_over_lean": speedup(outcomes, ("lean", dtype), ("engine", dtype)),
        "peak_memory": memory,
        "memory_ratio": memory["engine"] / memory["baseline"],
        **difference(engine[0].results, baseline[0].results),
    }
    if dtype != "float32":
        for name, own in (("same_text_as_float32", engine), ("baseline_same_text_as_float32", baseline)):
            reference = outcomes["engine" if own is engine else "baseline", "float32"][0].results
            same = [a.token_ids == b.token_ids for a, b in zip(own[0].results, reference)]
            found[name] = sum(same) / len(same)
    return found


def difference(found: Sequence[Result], expected: Sequence[Result]) -> dict[str, float]:
    """Texts whose first difference is no tie, texts whose first difference is one, and the largest difference of a
    probability or relevancy before it."""
    different, ties, largest = 0, 0, 0.0
    for one, other in zip(found, expected):
        pairs = list(zip(one.token_ids, other.token_ids))
        same = next((step for step, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if one.token_ids != other.token_ids:
            tie = same < len(pairs) and other.margins[same] <= TIE
            ties += tie
            different += not tie
        for mine, theirs in ((one.probabilities, other.probabilities), (one.relevancy, other.relevancy)):
            largest = max([largest, *(abs(a - b) for a, b in zip(mine[:same], theirs[:same]))])
    return {"different_tokens": different, "different_at_ties": ties, "max_probability_difference": largest}


def whole_grid(ways: dict[tuple[str, str], Process], shipped: str) -> dict[str, Any]:
    """The ratios of time and of peak memory for all cells of the question's grid, from one round."""
    cells = cells_of_layers(range(LAYERS))
    two = {(name, dtype): ways[name, dtype] for dtype in DTYPES for name in ("baseline", "engine")}
    for process in two.values():
        process.call("peak_memory")  # what came before does not count
    outcomes = take_turns(two, {}, cells, 1)
    memory = {way: process.call("peak_memory") for way, process in two.items()}
    pairs = {dtype: (("baseline", dtype), ("engine", dtype)) for dtype in DTYPES}
    pairs["as_shipped"] = ("baseline", "float32"), ("engine", shipped)
    found = {name: speedup(outcomes, *pair) for name, pair in pairs.items()}
    ratios = {name: memory[engine] / memory[baseline] for name, (baseline, engine) in pairs.items()}
    return {"cells": len(cells), **found, "memory_ratio": ratios}


def flatness(engine: Process, sizes: tuple[int, int], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds per cell, and peak memory, of a small and a large random sample of one grid.

    repeats: of the small one, before the large one and after it.
    """
    small, large = sizes
    numbers = random.Random(0).sample(range(LAYERS * LONG_TOKENS), large)

    def seconds(count: int) -> float:
        return engine.call("run", LONG_QUESTION, numbers[:count]).seconds / count

    engine.call("peak_memory")  # what came before does not count
    before = [seconds(small) for _ in range(repeats)]
    memory = {str(small): engine.call("peak_memory")}
    whole = seconds(large)
    memory[str(large)] = engine.call("peak_memory")
    return {
        str(small): statistics.median([*before, *(seconds(small) for _ in range(repeats))]),
        str(large): whole,
    }, memory


def matmul_fraction(
    ways: dict[tuple[str, str], Process], outcomes: dict[tuple[str, str], list[Outcome]], dtype: str, cells: list[int]
) -> float:
    """Rate of the engine's matrix multiplies over the rate that this machine reaches on them with 1,024 rows."""
    operations, rate = ways["engine", dtype].call("matmul", QUESTION, cells)
    return operations / statistics.median(outcome.seconds for outcome in outcomes["engine", dtype]) / rate


if __name__ == "__main__":
    sys.exit(main())
