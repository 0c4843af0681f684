"""How far to trust an interpretation: how much its words depend on the embedding, and how often such words are right.

    record.trust                                        # by the built-in calibration; None of a record with an error
    calibration = Calibration.read("evaluation.json")   # of one's own model
    results.trusted(0.1, calibration)

Words that the embedding has not caused are no evidence about it. How often words that it has caused are right can
only be measured where answers are known: a calibration holds the share that was right among facts of the tuning half,
by score. For other embeddings, models or interpretation prompts it gives an order at best, no share.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

STEPS = 20
"""Groups of equal size, before they are pooled: so a step's share rests on a twentieth of the interpretations."""
FIRST = 2
"""Tokens that the score looks at. Later ones follow from the text before them as much as from the embedding, and
repetitions have a high relevancy throughout."""


def relevancy_score(relevancy: Sequence[float | None]) -> float | None:
    """The raw score of an interpretation, 0 … 1: the mean relevancy of its first tokens; None where there is none."""
    known = [number for number in relevancy[:FIRST] if number is not None and math.isfinite(number)]
    return fmean(known) if known else None


@dataclass(frozen=True)
class Calibration:
    """A staircase from scores to the share that was right."""

    scores: tuple[float, ...]
    """Where each step begins, ascending. What lies below the first belongs to it too."""
    shares: tuple[float, ...]
    """Of the interpretations of a step, how many were right; ascending."""
    source: str
    """What it was measured on, in words."""

    def __post_init__(self) -> None:
        if not self.scores or len(self.scores) != len(self.shares):
            raise ValueError(f"a calibration needs as many shares as scores: {len(self.scores)}, {len(self.shares)}")
        for name, numbers, most in (("scores", self.scores, math.inf), ("shares", self.shares, 1)):
            if not all(0 <= number <= most for number in numbers) or list(numbers) != sorted(set(numbers)):
                raise ValueError(f"the {name} of a calibration are {numbers}: they must ascend from 0 or more")

    def share(self, score: float) -> float:
        """Of interpretations with such a score, how many were right."""
        return self.shares[max(0, bisect_right(self.scores, score) - 1)]

    def trust(self, relevancy: Sequence[float | None]) -> float | None:
        """The share for the relevancy of an interpretation's tokens; None where there is none."""
        score = relevancy_score(relevancy)
        return None if score is None else self.share(score)

    @classmethod
    def fit(cls, scores: Sequence[float], right: Sequence[bool], source: str) -> Calibration:
        """The ascending staircase nearest to what was right, by least squares, over groups of equal size.

        Isotonic regression by pooling adjacent violators (Ayer et al. 1955). Raises ValueError where there are no
        scores, or not as many verdicts.
        """
        if not scores or len(scores) != len(right):
            raise ValueError(f"{len(scores)} scores and {len(right)} verdicts: there must be as many, and some")
        pooled: list[list[float]] = []  # where it begins, how many were right, of how many
        for begin, hits, count in _groups(sorted(zip(scores, right))):
            pooled.append([begin, hits, count])
            while len(pooled) > 1 and pooled[-2][1] * pooled[-1][2] >= pooled[-1][1] * pooled[-2][2]:
                _, more_hits, more = pooled.pop()
                pooled[-1][1] += more_hits
                pooled[-1][2] += more
        return cls(tuple(begin for begin, _, _ in pooled), tuple(hits / count for _, hits, count in pooled), source)

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """What `scripts/evaluate_interpretations.py` measured on a model. Raises ValueError, OSError."""
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))["trust"]["calibration"]
            return cls(tuple(given["scores"]), tuple(given["shares"]), str(given["source"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} has no calibration that can be used: {error!r}") from error


def _groups(pairs: Sequence[tuple[float, bool]]) -> list[tuple[float, int, int]]:
    """Ascending pairs in up to STEPS groups: where each begins, how many were right, of how many.

    Equal scores stay together.
    """
    scores = [score for score, _ in pairs]
    starts = sorted({bisect_left(scores, scores[len(scores) * step // STEPS]) for step in range(STEPS)})
    groups = [pairs[start:end] for start, end in zip(starts, [*starts[1:], None])]
    return [(group[0][0], sum(hit for _, hit in group), len(group)) for group in groups]


BUILT_IN_CALIBRATION = Calibration(
    (0.0055, 0.0883, 0.2673, 0.3041, 0.4385, 0.518),
    (0.0, 0.0229, 0.1081, 0.1193, 0.1667, 0.6757),
    "last tokens of 91 facts at layers 3, 6, …, 24 of SmolLM2-135M-Instruct, interpreted by default",
)
"""Of the small model, by `python scripts/evaluate_interpretations.py --measures trust --layers 3:25:3`."""
