"""Interpretations that are kept for whoever asks again."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Any

import torch

from ..engine.cell import Cell, Interpretation
from .tickets import Work

REMEMBERED = 20_000
"""Interpretations that are kept for whoever asks again: some 60 MB."""


class Memory:
    """The interpretations that were asked for last, by everything that they depend on."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._kept: OrderedDict[Any, Interpretation] = OrderedDict()

    def get(self, work: Work, cell: Cell) -> Interpretation | None:
        key = _key(work, cell)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, work: Work, cell: Cell, interpretation: Interpretation) -> None:
        self._kept[_key(work, cell)] = interpretation
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def _key(work: Work, cell: Cell) -> Any:
    content = bytes(cell.vector.detach().cpu().contiguous().view(torch.uint8).numpy())
    content += str(cell.vector.dtype).encode()
    rest = {name: value for name, value in vars(cell).items() if name != "vector"}
    return sha256(content).digest(), tuple(rest.values()), work.settings
