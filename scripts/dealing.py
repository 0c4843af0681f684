"""How busy ranks are: a simulation of how chunks are dealt, with costs measured on the embedded model.

    python scripts/dealing.py --measure costs.json      # minutes: seconds of some chunks of each size, on one core
    python scripts/dealing.py costs.json                # the table

A chunk's cost is drawn from what was measured: a straight line through the means of the sizes, times the ratio of one
of the measured chunks to that line. Efficiency is busy time over time until the last rank has ended, times ranks.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.program import REFUSED, check_files, fail

CELLS = 10**6
RANKS = (1, 8, 64, 1024)
SIZES = {256: 4, 128: 4, 64: 6, 40: 8}
"""Chunk sizes to measure, and how many chunks of each."""
EXAMPLES = Path(__file__).resolve().parent / "examples" / "demo.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("costs", type=Path, metavar="costs.json")
    parser.add_argument("--measure", action="store_true", help="measure them and write the file")
    options = parser.parse_args(arguments)
    if options.measure:
        try:
            check_files({"the costs": options.costs}, {"the examples": EXAMPLES})
        except ValueError as error:
            return fail(error, REFUSED)
        options.costs.parent.mkdir(parents=True, exist_ok=True)
        options.costs.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
        return 0
    costs = Costs({int(size): seconds for size, seconds in json.loads(options.costs.read_text()).items()})
    print(table(costs))
    return 0


def measure() -> dict[int, list[float]]:
    """Seconds of processor time of chunks from all over the plan, by their size; one thread, the default dtype."""
    import torch
    from embedded_model import ensure_embedded_model
    from transformers.interpretation.models.loading import load_weights
    from transformers.interpretation.runs.job import Job
    from transformers.interpretation.runs.preparation import prepare
    from transformers.interpretation.runs.request import RunRequest

    torch.set_num_threads(1)
    request = RunRequest(model=str(ensure_embedded_model()), examples=EXAMPLES, output=Path("not-written.csv"))
    prepared = prepare(request)
    model = load_weights(prepared.outline, dtype=prepared.dtype, device="cpu")
    chance = random.Random(0)
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    for size, count in SIZES.items():
        plan = replace(prepared.plan, chunk_cells=size)
        job = Job(model, prepared.outline.tokenizer, plan, prepared.settings, batch_size=256)
        for chunk in chance.sample(range(plan.n_cells // size), count):
            began = time.thread_time()
            job.records(chunk)
            found[size].append(time.thread_time() - began)
            print(f"{size} cells: {found[size][-1]:.2f} s", file=sys.stderr)
    return found


class Costs:
    """Seconds of chunks of any size."""

    def __init__(self, measured: dict[int, list[float]]) -> None:
        means = {size: statistics.mean(seconds) for size, seconds in measured.items()}
        self.slope, self.fixed = statistics.linear_regression(list(means), list(means.values()))
        self.ratios = [one / self.of(size) for size, seconds in measured.items() for one in seconds]

    def of(self, size: int) -> float:
        return self.fixed + self.slope * size

    def draw(self, sizes: Sequence[int], seed: int) -> list[float]:
        """Costs of chunks, one each."""
        chance = random.Random(seed)
        return [self.of(size) * chance.choice(self.ratios) for size in sizes]


def claimed(costs: Sequence[float], ranks: int) -> float:
    """Seconds until the last rank has ended, if each takes the next chunk when it is free."""
    ends = [0.0] * ranks
    for cost in costs:
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def in_turn(costs: Sequence[float], ranks: int) -> float:
    """The same if rank r computes chunks r, r + ranks, r + 2 · ranks …"""
    return max(sum(costs[rank::ranks]) for rank in range(ranks))


def table(costs: Costs) -> str:
    """Markdown: efficiency, and cells per second as a part of what a rank alone does with chunks of 256."""
    from transformers.interpretation.runs.chunks import chunk_sizes
    from transformers.interpretation.runs.request import CHUNK_CELLS

    equal = [min(CHUNK_CELLS, CELLS - first) for first in range(0, CELLS, CHUNK_CELLS)]
    shrinking = list(chunk_sizes(CELLS, CHUNK_CELLS))
    ways = [("claimed, shrinking", shrinking, claimed), ("claimed, equal", equal, claimed)]
    ways.append(("in turn, equal", equal, in_turn))
    alone = sum(costs.draw(equal, 0))
    spread = statistics.stdev(costs.ratios)
    lines = [
        f"{CELLS:,} cells: {len(shrinking):,} shrinking chunks, {len(equal):,} equal ones. A chunk of n cells takes "
        f"{costs.fixed:.2f} s + n · {costs.slope:.3f} s, with a standard deviation of {spread:.0%}.",
        "",
        "| ranks | " + " | ".join(f"{name}: efficiency, speed" for name, _, _ in ways) + " |",
        "|---|" + "---|" * len(ways),
    ]
    for ranks in RANKS:
        cells = []
        for _, sizes, deal in ways:
            drawn = costs.draw(sizes, 0)
            seconds = deal(drawn, ranks)
            cells.append(f"{sum(drawn) / (seconds * ranks):.1%}, {alone / seconds:,.1f} ×")
        lines.append(f"| {ranks:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
