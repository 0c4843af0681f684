"""What guidance costs per token: the engine with it against the engine without, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common.benchmark_ways import Outcome, Process

GUIDANCE = 0.5


def guidance_cost(engine: Process, question: str, cells: Sequence[int], rounds: int) -> dict[str, Any]:
    """CPU seconds per token with and without guidance, medians over the rounds, and the median ratio within a round.

    Guided texts differ more from each other, so that more rows without surgery are read beside them: that is part of
    the cost.
    """
    seconds: dict[float, list[float]] = {0.0: [], GUIDANCE: []}
    for guidance in seconds:
        engine.call("guided", question, cells[:4], guidance)  # warm
    for _ in range(rounds):
        for guidance, measured in seconds.items():
            measured.append(_per_token(engine.call("guided", question, cells, guidance)))
    raw, guided = seconds.values()
    return {
        "guidance": GUIDANCE,
        "raw": statistics.median(raw),
        "guided": statistics.median(guided),
        "ratio": statistics.median(one / other for one, other in zip(guided, raw)),
    }


def guidance_line(dtype: str, cost: dict[str, Any]) -> str:
    """For reading."""
    raw, guided = 1e3 * cost["raw"], 1e3 * cost["guided"]
    return (
        f"Guidance {cost['guidance']:g}, {dtype}: {guided:.2f} ms of CPU time per token, {raw:.2f} without it "
        f"({cost['ratio']:.3f}×)."
    )


def _per_token(outcome: Outcome) -> float:
    return outcome.seconds / sum(len(result.token_ids) for result in outcome.results)
