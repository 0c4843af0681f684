"""Whether the interpretations that are trusted most are right, of `evaluate_interpretations.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from common.measured_model import Loaded

if TYPE_CHECKING:
    from transformers.interpretation.measures import Fact, Interpreter, ScoredCell

COVERAGES = tuple(step / 20 for step in range(20, 0, -1))
"""Shares of the interpretations, those that are trusted most."""


def described(loaded: Loaded, interpreter: Interpreter, known: Sequence[Fact], layers: Sequence[int]) -> str:
    """What trust was calibrated on."""
    settings = interpreter.settings
    mapped = "" if interpreter.mapping is None else ", mapped"
    return (
        f"last tokens of {len(known)} facts at layers {', '.join(map(str, layers))} of {loaded.name}, "
        f"interpretation prompt {interpreter.prompt.name}, {settings.description}{mapped}"
    )


def trust_section(tuning: Sequence[ScoredCell], cells: Sequence[ScoredCell], source: str) -> dict[str, Any]:
    """How often the interpretations that are trusted most are right; calibrated on those of the tuning half."""
    from transformers.interpretation.measures import calibrate, precision_at, separation, steps

    calibration = calibrate(tuning, source)
    return {
        "calibration": asdict(calibration),
        "area under the ROC curve": {"tuning": separation(tuning), "here": separation(cells)},
        "interpretations": {"tuning": len(tuning), "here": len(cells)},
        "precision by coverage": {f"{share:.0%}": asdict(precision_at(cells, share)) for share in COVERAGES},
        "steps": [asdict(step) for step in steps(cells, calibration)],
    }
