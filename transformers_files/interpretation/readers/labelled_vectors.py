"""Vectors whose labels are known, some of them held out of training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledVectors:
    """n of them. Raises ValueError for what does not fit together."""

    vectors: Tensor
    """`[n, hidden]`, float32, on the CPU."""
    labels: tuple[str, ...]
    held_out: tuple[bool, ...]
    """Which are not trained on: one at least, and not all."""
    layer: int | None = None
    """Whose hidden states they are, in this package's numbers; None: of none, or unknown."""

    def __post_init__(self) -> None:
        n = len(self.labels)
        shape = list(self.vectors.shape)
        if self.vectors.ndim != 2 or self.vectors.dtype != torch.float32:
            raise ValueError(f"vectors are {self.vectors.dtype} {shape}, expected float32 [n, hidden]")
        if not len(self.vectors) == n == len(self.held_out):
            raise ValueError(f"{shape[0]} vectors, {n} labels, {len(self.held_out)} said to be held out or not")
        if not 0 < sum(self.held_out) < n:
            raise ValueError(f"{sum(self.held_out)} of {n} labelled vectors are held out: one at least, and not all")
        for number, label in enumerate(self.labels):
            if not label.strip():
                raise ValueError(f"label {number} is empty")
        if bad := (~self.vectors.isfinite().all(1)).nonzero().flatten().tolist():
            raise ValueError(f"vector {bad[0]} ({self.labels[bad[0]]!r}) has NaN or infinity in it")

    def rows(self, *, held_out: bool) -> list[int]:
        return [row for row, out in enumerate(self.held_out) if out == held_out]

    @property
    def mean(self) -> Tensor:
        """`[hidden]`, of those that are trained on."""
        return self.vectors[self.rows(held_out=False)].mean(0)


def held_out_share(n: int, share: float, seed: int) -> tuple[bool, ...]:
    """Which of n are held out, drawn at random: one at least. Raises ValueError for a share not between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"the share that is held out is {share}: between 0 and 1")
    chosen = set(torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: max(1, round(share * n))].tolist())
    return tuple(row in chosen for row in range(n))
