"""Key/value caches that grow in memory they have used before, on a CPU.

    memory = RecycledMemory()
    with Answers({torch.cat: memory.append}):
        cache = memory.select_rows(cache, rows_that_go_on)
        model(next_tokens, past_key_values=cache, use_cache=True)      # appends to the cache

Every decode step copies the whole cache to append a token to it, and memory that is new to a process costs several
times what writing it costs: the system clears it page by page (9.8 MB: 6 ms with new memory, 0.8 ms with old). Here a
copy goes into memory that an earlier copy has left. Each representation of a cache appends by `torch.cat`; it is
answered here if it appends to what `select_rows` has given, or an earlier answer. Other devices have allocators that
recycle; they are left to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .cache import map_states

_ROOM = 4
"""Memory is asked for by this factor too large, so that a growing cache finds room: what is not written costs none."""


class RecycledMemory:
    """Memory that the caches of one decode loop take turns in: one that was selected from or appended to is gone."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []
        self._used: dict[tuple[int, torch.Size], Tensor] = {}
        """By the address and shape of the tensor that lies in it: a part of it may begin at the same address."""

    def select_rows(self, cache: Any, rows: Tensor) -> Any:
        """`cache.select_rows`, but the cache that is given must not be used again."""
        return map_states(cache, lambda states: self._select(states, rows.to(states.device)))

    def _select(self, states: Tensor, rows: Tensor) -> Tensor:
        if states.device.type != "cpu" or not states.is_contiguous():
            return states.index_select(0, rows)
        selected = self._take((len(rows), *states.shape[1:]), states.dtype)
        torch.index_select(states, 0, rows, out=selected)
        self._give_back(states)
        return selected

    def append(self, tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Any:
        """Answers `torch.cat([states, new], dim)`, where the states are of these caches."""
        if kwargs or len(tensors) != 2 or _place(tensors[0]) not in self._used:
            return NotImplemented
        states, new = tensors
        shape = list(states.shape)
        shape[dim] += new.shape[dim]
        grown = self._take(shape, states.dtype)
        torch.cat([states, new], dim, out=grown)
        self._give_back(states)
        return grown

    def _take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = torch.Size(shape).numel()
        while self._spare:
            memory = self._spare.pop()
            if memory.dtype == dtype and len(memory) >= size:
                break  # a smaller one is let go
        else:
            memory = torch.empty(_ROOM * size, dtype=dtype)
        taken = memory[:size].view(shape)
        self._used[_place(taken)] = memory
        return taken

    def _give_back(self, states: Tensor) -> None:
        memory = self._used.pop(_place(states), None)
        if memory is not None:
            self._spare.append(memory)


def _place(states: Tensor) -> tuple[int, torch.Size]:
    return states.data_ptr(), states.shape
