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
    """How many there were."""

    def __str__(self) -> str:
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


def estimate(values: Sequence[float], *, resamples: int = RESAMPLES, level: float = LEVEL) -> Estimate:
    """The mean of `values` with its percentile bootstrap interval (Efron 1979); the same on every call.

    What is drawn again is a value: give one per fact, so that cells of one fact do not count as independent.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is nothing to average")
    given = torch.tensor(values, dtype=torch.float64)
    drawn = torch.randint(len(given), (resamples, len(given)), generator=torch.Generator().manual_seed(0))
    tail = (1 - level) / 2
    means = given[drawn].mean(1)
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(float(given.mean()), low, high, len(given))
