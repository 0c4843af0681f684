"""What a client that waits for cells is told: `Begun`, any number of `Computed`, then `Finished`; or `Failed`."""

from __future__ import annotations

from dataclasses import dataclass

from ..report.grid import Column
from ..results.record import Record


@dataclass(frozen=True)
class Begun:
    """The source has been read."""

    layers: tuple[int, ...]
    columns: tuple[Column, ...]
    n_cells: int
    """How many will come."""


@dataclass(frozen=True)
class Computed:
    """Some more cells."""

    records: tuple[Record, ...]


@dataclass(frozen=True)
class Failed:
    """There will be no more."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """All cells have been sent."""


Message = Begun | Computed | Failed | Finished
