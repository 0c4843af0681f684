"""The formula of a SelfIE adapter: a vector, less a mean where one belongs to it, divided by its norm, through a linear
map with few parameters, all in float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = {
    "scale_only": ("log_scale",),
    "scalar_affine": ("log_scale", "bias"),
    "low_rank_only": ("U", "V", "bias"),
    "scalar_affine_plus_low_rank": ("log_scale", "U", "V", "bias"),
    "full_rank": ("weight", "bias"),
}
"""The tensors of each type of projection."""
_SMALLEST_NORM = 1e-8  # added, as there


@dataclass(frozen=True, eq=False)
class Projection:
    """Vectors `[n, hidden]` → soft tokens `[n, hidden]`, float32, in the units of the embedding layer."""

    kind: str
    """One of PARTS."""
    normalizes: bool
    tensors: Mapping[str, Tensor]
    """float32; gradients flow into those that want them."""
    mean: Tensor | None = None
    """`[hidden]`, subtracted first."""

    def __call__(self, vectors: Tensor) -> Tensor:
        x = vectors.float()
        parts = {name: tensor.to(x.device) for name, tensor in self.tensors.items()}
        if self.mean is not None:
            x = x - self.mean.to(x.device)
        if self.normalizes:
            x = x / (x.norm(dim=-1, keepdim=True) + _SMALLEST_NORM)
        made = torch.zeros_like(x)
        if "log_scale" in parts:
            made = made + parts["log_scale"].exp() * x
        if "U" in parts:
            made = made + x @ parts["U"] @ parts["V"].T
        if "weight" in parts:
            made = made + x @ parts["weight"].T
        return made + parts["bias"] if "bias" in parts else made


def beginning(kind: str, hidden: int, *, scale: float, rank: int, factor: float, seed: int) -> dict[str, Tensor]:
    """The tensors before training: the scale times the identity, no bias, and U and V `factor` times normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    made = {
        "log_scale": torch.tensor([math.log(scale)]),
        "U": factor * torch.randn(hidden, rank, generator=generator),
        "V": factor * torch.randn(hidden, rank, generator=generator),
        "bias": torch.zeros(hidden),
    }
    return {name: made[name] for name in PARTS[kind]}
