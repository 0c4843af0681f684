"""Means with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over facts or entities, and where it would fall for others of the same sort."""

    value: float
    low: float
    high: float
    n: int
    """Number of values."""

    def __str__(self) -> str:
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


def estimate(values: Sequence[float], *, resamples: int = RESAMPLES, level: float = LEVEL) -> Estimate:
    """The mean of `values` with its percentile bootstrap interval (Efron 1979); the same on every call.

    What is drawn again is a value: give one per fact, so that cells of one fact do not count as independent.

    Raises:
        ValueError: there are no values.
    """
    return estimate_ratio(values, [1.0] * len(values), resamples=resamples, level=level)


def estimate_ratio(
    parts: Sequence[float], wholes: Sequence[float], *, resamples: int = RESAMPLES, level: float = LEVEL
) -> Estimate:
    """The sum of `parts` over that of `wholes`, both drawn again together: one pair per fact, of which cells count.

    Raises:
        ValueError: there are no values.
    """
    if not parts:
        raise ValueError("there is nothing to average")
    part, whole = (torch.tensor(values, dtype=torch.float64) for values in (parts, wholes))
    drawn = torch.randint(len(part), (resamples, len(part)), generator=torch.Generator().manual_seed(0))
    tail = (1 - level) / 2
    means = part[drawn].sum(1) / whole[drawn].sum(1)
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(float(part.sum() / whole.sum()), low, high, len(part))
