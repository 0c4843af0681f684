"""Three rows with surgery of their own, and the plan for them."""

from __future__ import annotations

import torch
from transformers.interpretation.surgery.hooks import (
    SurgeryPlan,
    plan_surgery,
)

HIDDEN, PROMPT = 32, 7


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


def infos(mode: str = "normalized", strength: float = 1.0) -> list[dict]:
    return [
        {0: ([1, 3], vectors(2)), 2: ([-1], vectors(1, 1)), "replacing_mode": mode, "overlay_strength": strength},
        {},
        {2: ([0, 5], vectors(2, 2)), "replacing_mode": "addition", "overlay_strength": 0.5},
    ]


def plan_for(insert_info, batch_size=3, prompt_length=PROMPT) -> SurgeryPlan:
    return plan_surgery(insert_info, n_layers=4, hidden_size=HIDDEN, batch_size=batch_size, prompt_length=prompt_length)
