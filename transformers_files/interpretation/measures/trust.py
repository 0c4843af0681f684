"""Whether trust is deserved: of the interpretations that are trusted most, how many are right.

    calibration = calibrate(tuning_cells, "facts of the tuning half")
    precision_at(held_out_cells, 0.1)         # of the tenth that is trusted most

Interpretations with an error take no part.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..results.calibration import Calibration, relevancy_score
from .questions import Fact
from .recovery import ScoredCell
from .statistics import Estimate, estimate_ratio


@dataclass(frozen=True)
class Step:
    """A step of a calibration, on other facts than it was made on."""

    calibrated: float
    """The share that was right where it was made."""
    right: Estimate
    """The share that is right here."""
    interpretations: int


def calibrate(cells: Sequence[ScoredCell], source: str) -> Calibration:
    """Scores → the share of these cells that was right. Raises ValueError where there are none."""
    scored = _scored(cells)
    return Calibration.fit([score for score, _ in scored], [cell.right for _, cell in scored], source)


def separation(cells: Sequence[ScoredCell]) -> float | None:
    """The chance that a right interpretation has a higher score than a wrong one: the area under the ROC curve.

    None where all or none are right.
    """
    scored = _scored(cells)
    return roc_area([score for score, _ in scored], [cell.right for _, cell in scored])


def roc_area(scores: Sequence[float], right: Sequence[bool], groups: Sequence[Hashable] | None = None) -> float | None:
    """The chance that a right one has a higher score than a wrong one, of the same group where groups are given.

    With source layers for groups it tells what is left when depth explains nothing. None where there are no pairs.
    """
    groups = [None] * len(scores) if groups is None else groups
    kept: dict[Hashable, tuple[list[float], list[float]]] = {}
    for score, verdict, group in zip(scores, right, groups):
        kept.setdefault(group, ([], []))[not verdict].append(score)
    won = sum((a > b) + 0.5 * (a == b) for good, bad in kept.values() for a in good for b in bad)
    pairs = sum(len(good) * len(bad) for good, bad in kept.values())
    return won / pairs if pairs else None


def precision_at(cells: Sequence[ScoredCell], coverage: float) -> Estimate:
    """The share that is right among the `coverage` (0 … 1) of the cells with the highest scores, at least one.

    Raises ValueError where there are no cells.
    """
    ordered = [cell for _, cell in sorted(_scored(cells), key=lambda pair: -pair[0])]
    return share_right(ordered[: max(1, round(coverage * len(ordered)))])


def steps(cells: Sequence[ScoredCell], calibration: Calibration) -> list[Step]:
    """What the calibration predicts, and what holds for these cells; steps with no cell are left out."""
    by_share: dict[float, list[ScoredCell]] = {share: [] for share in calibration.shares}
    for score, cell in _scored(cells):
        by_share[calibration.share(score)].append(cell)
    return [Step(share, share_right(group), len(group)) for share, group in by_share.items() if group]


def _scored(cells: Sequence[ScoredCell]) -> list[tuple[float, ScoredCell]]:
    scored = ((relevancy_score(cell.said.interpretation.relevancy), cell) for cell in cells)
    return [(score, cell) for score, cell in scored if score is not None]


def share_right(cells: Sequence[ScoredCell]) -> Estimate:
    """Its interval is over facts: interpretations of one fact at neighbouring layers are much alike."""
    by_fact: dict[Fact, list[bool]] = {}
    for cell in cells:
        by_fact.setdefault(cell.fact, []).append(cell.right)
    groups = list(by_fact.values())
    return estimate_ratio([sum(group) for group in groups], [len(group) for group in groups])
