"""The colours of relevancy, for the page, the terminal and figures alike.

A path through OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020) on which lightness only
falls (only rises on a dark ground) and equal steps of relevancy are equally far apart. So it reads without colour, and
to the colour-blind.
"""

from __future__ import annotations

import math
from itertools import pairwise

STEPS = 21
"""Colours of a ramp: relevancy 0, 1/20, … 1 of the scale."""

RGB = tuple[float, float, float]
_SAMPLES = 400


def ramp(*, dark: bool) -> tuple[str, ...]:
    """`STEPS` colours "#rrggbb" from no relevancy (close to the ground) to the most."""
    path = [_on_path(n / _SAMPLES, dark) for n in range(_SAMPLES + 1)]
    lengths = [0.0]
    for a, b in pairwise(path):
        lengths.append(lengths[-1] + math.dist(a, b))
    chosen = []
    for step in range(STEPS):
        wanted = lengths[-1] * step / (STEPS - 1)
        chosen.append(min(range(len(path)), key=lambda n: abs(lengths[n] - wanted)))
    return tuple(_hex(_srgb(path[n])) for n in chosen)


def ink(colour: str) -> str:
    """Black or white, whichever is easier to read on "#rrggbb" (WCAG contrast, never below 4.5)."""
    light = luminance(colour)
    return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", 0 to 1."""
    channels = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def step_of(relevancy: float, scale: float) -> int:
    """Index into a ramp; what exceeds the scale gets the last colour."""
    return min(STEPS - 1, max(0, round(relevancy / scale * (STEPS - 1))))


def _on_path(t: float, dark: bool) -> RGB:
    """OKLab of the path at t in [0, 1]: pale yellow to blue on a light ground, deep blue to green on a dark one."""
    if dark:
        lightness, chroma, hue = 0.25 + 0.295 * t, 0.03 + 0.10 * t, 275 - 115 * t
    else:
        lightness, chroma, hue = 0.985 - 0.415 * t, 0.012 + 0.20 * t * (1 - t) + 0.14 * t * t, 105 + 150 * t
    angle = math.radians(hue)
    # Chroma is lowered where the screen cannot show it, so that lightness stays what the path says.
    while not all(-1e-4 <= channel <= 1.0001 for channel in _linear(lightness, chroma, angle)):
        chroma *= 0.98
    return lightness, chroma * math.cos(angle), chroma * math.sin(angle)


def _linear(lightness: float, chroma: float, angle: float) -> RGB:
    a, b = chroma * math.cos(angle), chroma * math.sin(angle)
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741  (the paper's name)
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )


def _srgb(lab: RGB) -> RGB:
    lightness, a, b = lab
    linear = (min(1.0, max(0.0, channel)) for channel in _linear(lightness, math.hypot(a, b), math.atan2(b, a)))
    red, green, blue = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in linear)
    return red, green, blue


def _hex(rgb: RGB) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)
