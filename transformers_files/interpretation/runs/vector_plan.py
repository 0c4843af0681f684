"""Which vectors of a file are interpreted, cell by cell.

A cell is one (block, interpretation prompt, vector, sample); cells are numbered in that order, the last varying
fastest. A block of consecutive vectors is what an example is elsewhere: it has a name, and views show it as one.
Nothing here grows with the number of vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..prompts.interpretation_prompt import InterpretationPrompt
from ..vectors.vector_file import VectorFile
from .chunks import Chunked

BLOCK = 100
"""Vectors that views show together."""


@dataclass(frozen=True)
class VectorAddress:
    """Which vector is interpreted, and how."""

    prompt: InterpretationPrompt
    index: int
    sample: int | None = None
    """Its number among the samples; None where there is no sampling."""


@dataclass(frozen=True)
class VectorPlan(Chunked):
    """All cells of a file of vectors, or of some of its rows."""

    file: VectorFile
    rows: range
    """Consecutive ones, at least one."""
    prompts: tuple[InterpretationPrompt, ...]
    chunk_cells: int
    samples: int | None = None
    """The number of samples of each vector; None: its only interpretation is not sampled."""
    layer: int | None = None
    """The hidden state that the vectors belong to, where that matters: a map has it, or a reader."""

    @property
    def all_prompts(self) -> tuple[InterpretationPrompt, ...]:
        return self.prompts

    @property
    def n_cells(self) -> int:
        return len(self.rows) * len(self.prompts) * self.inseparable

    @property
    def inseparable(self) -> int:
        """The samples of a vector: a strength that is chosen for it is chosen once."""
        return self.samples or 1

    @property
    def example_names(self) -> Sequence[str]:
        """Of the blocks, in their order."""
        return [self.block_name(start) for start in self.rows[::BLOCK]]

    def block_name(self, index: int) -> str:
        """Of the block that has row `index` of the file, such as `vectors_200:300`: the rows that it is."""
        start = index - (index - self.rows.start) % BLOCK
        return f"vectors_{start}:{min(start + BLOCK, self.rows.stop)}"

    def chunk(self, index: int) -> list[VectorAddress]:
        """The cells of one chunk, in order."""
        return [self._address(number) for number in self.numbers(index)]

    def prompt_runs(self) -> Iterator[tuple[InterpretationPrompt, int]]:
        """All cells in order, as runs of a number of cells with the same interpretation prompt."""
        for start in range(0, len(self.rows), BLOCK):
            cells = min(BLOCK, len(self.rows) - start) * self.inseparable
            yield from ((prompt, cells) for prompt in self.prompts)

    def _address(self, number: int) -> VectorAddress:
        block, rest = divmod(number, BLOCK * len(self.prompts) * self.inseparable)
        size = min(BLOCK, len(self.rows) - block * BLOCK)
        prompt, rest = divmod(rest, size * self.inseparable)
        vector, sample = divmod(rest, self.inseparable)
        drawn = None if self.samples is None else sample
        return VectorAddress(self.prompts[prompt], self.rows[block * BLOCK + vector], drawn)
