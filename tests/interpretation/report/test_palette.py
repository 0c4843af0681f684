"""Colours: in the same order for all kinds of colour vision, and text that stays readable on them."""

from __future__ import annotations

import itertools
import math

import pytest
from report_records import grid_records
from transformers.interpretation.report.grid import relevancy_scale
from transformers.interpretation.report.palette import STEPS, ink, luminance, ramp, step_of

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


@pytest.mark.parametrize("dark", [False, True])
def test_lightness_runs_one_way_and_text_stays_readable(dark):
    shades = [luminance(colour) for colour in ramp(dark=dark)]
    assert shades == sorted(shades, reverse=not dark)
    assert min(abs(a - b) for a, b in itertools.pairwise(shades)) > 0.002
    for colour in ramp(dark=dark):
        ground, text = luminance(colour), luminance(ink(colour))
        assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 4.5


def cielab(colour):
    """CIE 1976 L*a*b* of "#rrggbb" under D65: another space than the one that the ramp is made in."""
    linear = [((int(colour[n : n + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for n in (1, 3, 5)]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        (sum(weight * channel for weight, channel in zip(row, linear)) / full) ** (1 / 3)
        for row, full in zip(to_xyz, white)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("dark", [False, True])
def test_equal_steps_of_relevancy_look_equally_far_apart(dark):
    steps = [math.dist(cielab(a), cielab(b)) for a, b in itertools.pairwise(ramp(dark=dark))]
    assert min(steps) > 2  # can be told apart
    assert max(steps) < 3 * min(steps)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "seen",
    [  # Machado, Oliveira and Fernandes 2009: full protanopia, deuteranopia, tritanopia (linear RGB)
        ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
        ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    ],
)
def test_the_colour_blind_see_the_same_order(dark, seen):
    shades = []
    for colour in ramp(dark=dark):
        linear = [((int(colour[n : n + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for n in (1, 3, 5)]
        red, green, blue = (sum(weight * channel for weight, channel in zip(row, linear)) for row in seen)
        shades.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert shades == sorted(shades, reverse=not dark)


def test_the_scale_covers_the_largest_mean():
    means = [sum(record.interpretation_weights) / len(record.interpretation_weights) for record in RECORDS]
    scale = relevancy_scale(RECORDS)
    assert max(means) <= scale < max(means) + 0.1 + 1e-9
    assert step_of(0, scale) == 0
    assert step_of(scale, scale) == step_of(2, scale) == STEPS - 1
