"""A part of a table of any size: read row by row, held only as far as it is shown.

    portion = read_portion(path)                               # from the first example on, as many as a page takes
    portion = read_portion(path, Examples.read("::100"))       # every hundredth
    portion.records, portion.note

An example is a run of rows with the same name and prompt, as every run of the program writes them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from .csv_table import CsvTable
from .parquet import ParquetTable
from .record import Record

MOST_CELLS = 50_000
"""Of a page that still opens in a moment: some 25 MB."""
_SLICE = re.compile(r"(\d{0,12}):(\d{0,12})(?::(\d{0,12}))?|(\d{1,12})", re.ASCII)


@dataclass(frozen=True)
class Examples:
    """Which examples of a file, in its order: a range that does not count from the end."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    @classmethod
    def read(cls, text: str) -> Examples:
        """`20:40`, `40:`, `::100` as Python slices; `7`. Raises ValueError."""
        match = _SLICE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" is no range of examples: write 20:40, 40:, ::100 or 7, counted from 0')
        if match[4]:
            return cls(int(match[4]), int(match[4]) + 1)
        if match[3] and not int(match[3]):
            raise ValueError(f'"{text}" has step 0')
        return cls(int(match[1] or 0), int(match[2]) if match[2] else None, int(match[3] or 1))

    def has(self, number: int) -> bool:
        return number >= self.start and (number - self.start) % self.step == 0

    def after(self, number: int) -> str:
        """What to write for those of them from `number` on."""
        stop = "" if self.stop is None else self.stop
        return f"{number}:{stop}" + (f":{self.step}" if self.step > 1 else "")

    def is_past(self, number: int) -> bool:
        return self.stop is not None and number >= self.stop


@dataclass(frozen=True)
class Portion:
    """What was read of a table."""

    records: tuple[Record, ...]
    note: str | None
    """What is left out, and how to see it; None where nothing is."""


def open_table(path: str | Path) -> CsvTable | ParquetTable:
    """A table of either form, by its name; its records come one at a time."""
    return (ParquetTable if Path(path).suffix.lower() == ".parquet" else CsvTable)(path)


def read_portion(path: str | Path, examples: Examples | None = None, *, most_cells: int = MOST_CELLS) -> Portion:
    """Whole examples of a table, at most `most_cells` cells together; of one alone that has more, its first.

    Raises ResultsError for a file that holds no interpretations, up to where it is read.
    """
    examples = examples or Examples()
    table = open_table(path)
    kept: list[Record] = []
    seen = shown = 0
    more: int | None = None
    for number, rows in enumerate(_runs(table)):
        if examples.is_past(number):
            break
        if not examples.has(number):
            seen += sum(1 for _ in rows)
            continue
        run = list(islice(rows, most_cells + 1))
        seen += len(run)
        if kept and len(kept) + len(run) > most_cells:
            more = number
            break
        kept += run[:most_cells]
        shown += 1
        if len(run) > most_cells:
            more = number + examples.step
            break
    else:
        if len(kept) == seen:
            return Portion(tuple(kept), None)
    percent = 100 * len(kept) * table.share / max(1, seen)
    what = f"{len(kept):,} interpretations of {shown:,} example{'s' * (shown != 1)}"
    note = f"Shown are {what}, about {percent:.2g} % of {Path(path).name}."
    if more is not None:
        command = "python -m transformers.interpretation.report"
        note += f" More: {command} {shlex.quote(Path(path).name)} --examples {examples.after(more)}"
    return Portion(tuple(kept), note)


def read_example(path: str | Path, name: str, *, most_cells: int = MOST_CELLS) -> tuple[Record, ...]:
    """The first example of that name, or its first cells. Raises ValueError if there is none."""
    names: list[str] = []
    for rows in _runs(open_table(path)):
        first = next(rows)
        if first.name == name:
            return (first, *islice(rows, most_cells - 1))
        names += [first.name] * (len(names) < 5)
    raise ValueError(f"no example {name!r}; the first are: {', '.join(names)}")


def _runs(table: CsvTable | ParquetTable) -> Iterator[Iterator[Record]]:
    for _, rows in groupby(table, key=lambda record: (record.name, record.prompt)):
        yield rows
