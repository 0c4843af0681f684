"""Cells of a plan, numbered from 0, and how they are cut into chunks.

A chunk is a run of consecutive cells, the unit of computing, resuming and distributing work: which cells it has depends
on the settings alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate

LARGE_PLAN = 1_000_000
"""Cells. A smaller plan is seldom for a thousand ranks, and small chunks cost more per cell."""
SMALLEST_CHUNK = 80
_RANKS = 1000


class Chunked:
    """What a plan of any kind of cells is; it says how many there are."""

    chunk_cells: int

    @property
    def n_cells(self) -> int:
        raise NotImplementedError

    @property
    def inseparable(self) -> int:
        """So many consecutive cells are always in one chunk."""
        return 1

    @cached_property
    def _starts(self) -> list[int]:
        """For each chunk the number of its first cell; at the end that of all cells."""
        together = self.inseparable
        sizes = chunk_sizes(self.n_cells // together, max(1, self.chunk_cells // together))
        return [0, *accumulate(size * together for size in sizes)]

    @property
    def n_chunks(self) -> int:
        return len(self._starts) - 1

    def cells_in(self, chunks: int) -> int:
        """How many cells the first chunks have."""
        return self._starts[chunks]

    def chunk_size(self, index: int) -> int:
        """How many cells one chunk has."""
        return self._starts[index + 1] - self._starts[index]

    def numbers(self, index: int) -> range:
        """Those of one chunk's cells."""
        return range(self._starts[index], self._starts[index + 1])


def chunk_sizes(n_cells: int, chunk_cells: int) -> Iterator[int]:
    """How many cells each chunk has.

    The last quarter of a million cells of a large plan comes in chunks that shrink with what is left (guided
    self-scheduling, Polychronopoulos and Kuck 1987), so that a thousand ranks end at nearly the same time. The number
    of ranks that there are is not known here, nor may it count. `scripts/dealing.py` simulates what it brings.
    """
    left = n_cells
    while left:
        size = chunk_cells
        if n_cells >= LARGE_PLAN:
            size = min(size, max(SMALLEST_CHUNK, left // _RANKS))
        yield min(size, left)
        left -= min(size, left)
