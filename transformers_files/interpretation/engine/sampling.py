"""Sampled interpretations: several of one vector, each of which can be computed alone.

    sampling = Sampling(samples=8, temperature=0.7, seed=1)
    cells = [Cell(vector, prompt, seed=sampling.seed_of("my vector", sample)) for sample in range(8)]
    interpret_chunk(model, cells, InterpretationSettings(sampling=sampling), batch_size=8)

A cell's random numbers follow from its seed and the number of the token, so they do not depend on what is computed
beside it, on the batch size or on the number of processes. The tokens do not either, except where a number lies within
the rounding of the model's probabilities from the border between two tokens.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

MOST_SAMPLES = 10_000
"""Of a cell; with more, a mistyped number would be a plan without end."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Without it every token is the best one."""

    samples: int
    """Interpretations of each cell."""
    temperature: float = 1.0
    """What logarithms of probabilities are divided by; near 0 the best token is nearly certain."""
    top_p: float = 1.0
    """Tokens come from the fewest most probable ones that have this share together, and the equals of the last of them
    (nucleus sampling, Holtzman and others 2020, arXiv:1904.09751)."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "seed"):
            if not hasattr(number := getattr(self, name), "__index__"):
                raise ValueError(f"{name} is {number!r}: it must be a whole number")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"samples is {self.samples}: it must be from 1 to {MOST_SAMPLES:,} (0: no sampling)")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be finite and greater than 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be in (0, 1]")

    @classmethod
    def of(cls, samples: int, temperature: float, top_p: float, seed: int) -> Sampling | None:
        """None for 0 samples. Raises ValueError, also for what would have no effect then."""
        asked = cls(samples or 1, temperature, top_p, seed)
        if samples:
            return asked
        if asked != cls(1):
            raise ValueError("temperature, top_p and seed are for sampling: say how many samples")
        return None

    def seed_of(self, cell: str, sample: int) -> int:
        """The seed of one sample of a cell: equal for equal cells, whatever is interpreted beside them."""
        return _number(f"{self.seed}\0{sample}\0{cell}")

    @property
    def description(self) -> str:
        """For people: "8 samples at temperature 0.7, top p 0.9"."""
        nucleus = f", top p {self.top_p:g}" if self.top_p < 1 else ""
        return f"{self.samples} sample{'s' * (self.samples > 1)} at temperature {self.temperature:g}{nucleus}"


def uniform(seed: int, token: int) -> float:
    """The random number in [0, 1) by which a cell's token of that number is drawn."""
    return (_number(f"{seed}\0{token}") >> 11) * 2.0**-53


def _number(text: str) -> int:
    """64 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
