"""What evaluate_interpretations.py measures under the name "roundtrip": are words right that lead to their vector?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.interpretation.measures import Interpreter, ScoredCell


def roundtrip_section(
    interpreter: Interpreter, cells: Sequence[ScoredCell], layers: Sequence[int], n_layers: int
) -> dict[str, Any]:
    """The score beside today's, on the same interpretations; the state after all layers is left out."""
    from transformers.interpretation.measures import compare_scores, fit_round_trip

    trip = fit_round_trip(interpreter, [layer for layer in layers if layer < n_layers])
    return {name: asdict(found) for name, found in compare_scores(trip, cells).items()}


def roundtrip_text(section: dict[str, Any]) -> str:
    """For reading."""
    lines = [f"round trip{'score':>14}{'ROC area':>10}{'in layers':>11}  right of the best 100 %, 50 %, 25 %, 10 %"]
    for name, found in section.items():
        areas = [f"{area:.2f}" if area is not None else "–" for area in (found["area"], found["area_within_layers"])]
        shares = ", ".join(f"{share['value']:.1%}" for share in found["precision"].values())
        lines.append(f"{name:>24}{areas[0]:>10}{areas[1]:>11}  {shares}")
    return "\n".join(lines)
