"""A file of vectors that is open: how many there are, what they are called, and any few of them.

    file = open_vectors(Path("sae"))                 # of `formats`
    file.n, file.hidden
    file.rows(0, 256)                                # [256, hidden], float32
    file.names(0, 256)

Nothing but the rows asked for is held in memory, so that files of any size can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor


class VectorsError(ValueError):
    """A file that holds no vectors, or not those that were asked for."""


class Rows(Protocol):
    """The vectors of a file, in the way of its format."""

    @property
    def n(self) -> int:
        """How many there are."""

    @property
    def hidden(self) -> int:
        """Numbers of each."""

    def read(self, start: int, stop: int) -> Tensor:
        """`[stop − start, hidden]`, float32, in memory of its own. Raises VectorsError."""


class Names(Protocol):
    """What the vectors are called."""

    @property
    def digest(self) -> str | None:
        """Differs for other names of the same file of vectors; None for those that it has by itself."""

    def read(self, start: int, stop: int) -> list[str]:
        """Of some of them, in order. Raises VectorsError."""


@dataclass(frozen=True)
class Origin:
    """Where a sparse autoencoder reads and writes, as its own file says."""

    hook: str
    """As TransformerLens names it: `blocks.8.hook_resid_post`."""
    place: str
    """One of `families.HOOK_POINTS`."""
    layer: int
    """In this package's numbers: `blocks.8.hook_resid_post` is the output of block 8, hidden state 9."""
    model: str | None = None
    """The model's name there."""


@dataclass(frozen=True)
class VectorFile:
    """Vectors in a file; see the module's docstring."""

    path: Path
    what: str
    """Which of its contents they are, such as `tensor W_dec`."""
    content: Rows
    naming: Names
    digest: str
    """See `digest`."""
    origin: Origin | None = None

    @property
    def n(self) -> int:
        """How many vectors there are."""
        return self.content.n

    @property
    def hidden(self) -> int:
        """Numbers of each vector."""
        return self.content.hidden

    def rows(self, start: int, stop: int) -> Tensor:
        """`[stop − start, hidden]`, float32. Raises VectorsError."""
        self._check(start, stop)
        return self.content.read(start, stop)

    def names(self, start: int, stop: int) -> list[str]:
        """Of the same rows. Raises VectorsError."""
        self._check(start, stop)
        return self.naming.read(start, stop)

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.n:
            raise VectorsError(f"{self.path} has rows 0 to {self.n - 1}, not {start}:{stop}")
