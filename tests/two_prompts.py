"""Two prompts of different lengths, with what is inserted into each."""

from __future__ import annotations

import torch

HIDDEN = 32
PROMPTS = ([5, 17, 99, 23, 64, 31], [71, 8, 45])
WIDTH = 6


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


INFOS = [
    {1: ([-4, -2], vectors(2, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0},
    {0: ([-3], vectors(1, 2)), 3: ([-1], vectors(1, 3)), "replacing_mode": "addition", "overlay_strength": 1.5},
]
IDS = torch.tensor([[0] * (WIDTH - len(prompt)) + prompt for prompt in PROMPTS])
MASK = torch.tensor([[0] * (WIDTH - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
MASKED = {**INFOS[1], 0: ([1], vectors(1, 2))}


def continuations(generated: torch.Tensor, width: int = WIDTH) -> list[list[int]]:
    return generated[:, width:].tolist()
