"""Estimates and their intervals."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers.interpretation.measures import (
    estimate,
)


def test_the_bootstrap_interval_is_that_of_all_resamples():
    """Of three values there are 27 resamples: quantiles of their means can be listed."""
    values = [0.0, 1.0, 5.0]
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(values, repeat=3))
    found = estimate(values, level=0.6)
    assert found.value == pytest.approx(2.0)
    assert found.n == 3
    assert found.low == pytest.approx(means[int(0.2 * 27)])
    assert found.high == pytest.approx(means[int(0.8 * 27)])


def test_the_interval_of_a_share_covers_as_often_as_it_says():
    """Of 300 samples of 40 with a share of 0.3, some 95 % have it in their interval."""
    drawn = torch.rand((300, 40), generator=torch.Generator().manual_seed(3)) < 0.3
    inside = [(found := estimate(row)).low <= 0.3 <= found.high for row in drawn.tolist()]
    assert 0.90 <= sum(inside) / 300 <= 0.99


def test_equal_values_have_no_width_and_no_values_are_an_error():
    found = estimate([True, True])
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert estimate([0, 1, 1]) == estimate([0, 1, 1])
    with pytest.raises(ValueError, match="nothing to average"):
        estimate([])
