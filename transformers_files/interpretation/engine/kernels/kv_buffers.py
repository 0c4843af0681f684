"""Key/value caches with room to grow, in memory they have used before, on a CPU.

    memory = GrowingBuffers()
    with FunctionOverrides({torch.cat: memory.append, scaled_dot_product_attention: one_query_attention(memory.whole)}):
        cache = memory.select_rows(cache, unfinished_rows)
        model(next_tokens, use_cache=True, **cache_beside(model, cache, next_tokens))      # appends to the cache

The library copies the whole cache in every decode step to append a token to it, and memory that is new to a process
costs several times what writing it costs: the system clears it page by page (9.8 MB: 6 ms with new memory, 0.8 ms with
old). Here keys and values lie in wholes with room for a few more tokens, which are written in place; a whole that is
full is copied into memory that an earlier one has left. Each representation of a cache appends by `torch.cat`; it is
answered here if it appends to what `select_rows` has given, or an earlier answer. Other devices have allocators that
recycle; they are left to them.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.kv_cache import map_states

_ROOM = 8
"""Tokens: what has no room for one more gets room up to the next multiple."""

_ASKED = 4
"""Memory is asked for by this factor too large, so that a growing cache fits: what is not written costs none."""


@dataclass(frozen=True)
class _Whole:
    """States with room behind them along one dimension; the room holds zeros."""

    states: Tensor
    dim: int
    memory: Tensor
    """One-dimensional; the states lie at its beginning."""


class GrowingBuffers:
    """Memory that the caches of one decode loop take turns in: one that was selected from or appended to is gone."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []
        self._used: dict[tuple[int, torch.Size], _Whole] = {}
        """By address and shape of the part that is in use: a part of that may begin at the same address."""

    def whole(self, states: Tensor) -> Tensor:
        """States of these caches with the room behind them, which holds zeros; any others as they are."""
        known = self._used.get(_place(states))
        return states if known is None else known.states

    def select_rows(self, cache: Any, rows: Tensor) -> Any:
        """`kv_cache.select_rows`, but the cache that is given must not be used again."""
        return map_states(cache, rows, lambda states: self._select(states, rows.to(states.device)))

    def _select(self, states: Tensor, rows: Tensor) -> Tensor:
        known = self._used.get(_place(states))
        if states.device.type != "cpu" or not (known or states.is_contiguous()):
            return states.index_select(0, rows)
        whole, dim = (known.states, known.dim) if known else (states, 1)
        selected = self._take((len(rows), *whole.shape[1:]), dim, states.dtype)
        torch.index_select(whole, 0, rows, out=selected.states)
        self._give_back(states)
        return self._use(selected, states.shape[dim])

    def append(self, tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Any:
        """FunctionOverrides `torch.cat([states, new], dim)`, where the states are of these caches."""
        known = self._used.get(_place(tensors[0])) if len(tensors) == 2 and not kwargs else None
        if known is None or dim % known.states.ndim == 0:
            return NotImplemented
        states, new = tensors
        filled, dim = states.shape[dim], dim % states.ndim
        length = filled + new.shape[dim]
        whole = known if dim == known.dim and length <= known.states.shape[dim] else self._moved(states, dim, length)
        self._used.pop(_place(states), None)
        whole.states.narrow(dim, filled, new.shape[dim]).copy_(new)
        return self._use(whole, length)

    def _moved(self, states: Tensor, dim: int, length: int) -> _Whole:
        """A copy with room for at least this length."""
        shape = list(states.shape)
        shape[dim] = -(-length // _ROOM) * _ROOM
        moved = self._take(shape, dim, states.dtype)
        moved.states.narrow(dim, 0, states.shape[dim]).copy_(states)
        moved.states.narrow(dim, states.shape[dim], shape[dim] - states.shape[dim]).zero_()
        self._give_back(states)
        return moved

    def _take(self, shape: Sequence[int], dim: int, dtype: torch.dtype) -> _Whole:
        size = torch.Size(shape).numel()
        while self._spare:
            memory = self._spare.pop()
            if memory.dtype == dtype and len(memory) >= size:
                break  # a smaller one is let go
        else:
            memory = _map(_ASKED * size, dtype)
        return _Whole(memory[:size].view(shape), dim, memory)

    def _use(self, whole: _Whole, length: int) -> Tensor:
        states = whole.states.narrow(whole.dim, 0, length)
        self._used[_place(states)] = whole
        return states

    def _give_back(self, states: Tensor) -> None:
        known = self._used.pop(_place(states), None)
        if known is not None:
            self._spare.append(known.memory)


def _map(size: int, dtype: torch.dtype) -> Tensor:
    """Memory that goes back to the system when it is let go; malloc's, among others, would stay with the process.

    Raises MemoryError, as other allocations do, where mmap raises OSError.
    """
    length = size * dtype.itemsize
    try:
        return torch.frombuffer(mmap.mmap(-1, length), dtype=dtype)
    except OSError as error:
        raise MemoryError(f"the system gives no map of {length:,} bytes for keys and values: {error}") from error


def _place(states: Tensor) -> tuple[int, torch.Size]:
    return states.data_ptr(), states.shape
