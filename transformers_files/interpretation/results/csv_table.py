"""Records as lines of CSV, and back.

Every list is JSON, floats are rounded to 6 decimals, and what does not exist is `null` (a list) or an empty cell.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors.problems import ProblemsError
from .columns import PER_TOKEN, Column
from .record import COLUMNS, TABLE, Record, table_value

_SHOWN_PROBLEMS = 20
_LARGEST_FIELD = 2**31 - 1  # of the csv module: a C long, 32 bits on Windows
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_TO_QUOTE = re.compile('[",\r\n]')


class ResultsError(ProblemsError):
    """A file that does not hold interpretations."""


def csv_header() -> str:
    """The first line of the CSV."""
    return _csv_line(COLUMNS)


def csv_rows(records: Iterable[Record], *, safe: bool = False) -> str:
    """The records as lines of CSV.

    `safe` guards against spreadsheets that take a cell for a formula: text that begins with = + - @, a tab or a
    carriage return gets a ' in front.
    """
    lines = (zip(TABLE, table_row(record)) for record in records)
    return "".join(_csv_line(_csv_cell(column, value, safe) for column, value in line) for line in lines)


def table_row(record: Record) -> Iterator[Any]:
    """The record's values in the order of COLUMNS: numbers rounded, lists as lists, None where there is nothing."""
    return (column.form.rounded(table_value(record, column)) for column in TABLE)


class CsvTable:
    """The records of a CSV with (at least) the columns of `COLUMNS`, in any order, read one row at a time.

    Iterating raises ResultsError instead of the first row that is wrong, with the next problems beyond it (20 at most).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.share = 0.0
        """How much of the file has been read, from 0 to 1."""

    def __iter__(self) -> Iterator[Record]:
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file, _long_fields():
                size = max(1, os.fstat(file.fileno()).st_size)
                for record in _read(self.path, csv.reader(file, strict=True)):
                    self.share = file.buffer.tell() / size  # type: ignore[attr-defined]  # which typeshed does not know
                    yield record
                self.share = 1.0
        except UnicodeDecodeError as error:
            raise ResultsError([f"not UTF-8: {error.reason}"], self.path) from None
        except ResultsError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            problem = f"cannot read: {getattr(error, 'strerror', None) or error}"
            raise ResultsError([problem], self.path) from None


def _csv_cell(column: Column, value: Any, safe: bool) -> str:
    cell = column.form.cell(value)
    return "'" + cell if safe and not column.form.is_list and cell.startswith(_FORMULA_STARTS) else cell


def _csv_line(cells: Iterable[str]) -> str:
    """One record. The csv module's writer is not used: before Python 3.13 it leaves a bare carriage return unquoted."""
    quoted = ('"' + cell.replace('"', '""') + '"' if _TO_QUOTE.search(cell) else cell for cell in cells)
    return ",".join(quoted) + "\n"


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read cells of any length: the token list of a long prompt exceeds its default."""
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read(path: str | Path, reader: Any) -> Iterator[Record]:
    problems: list[str] = []
    line = 1
    try:
        header: list[str] = next(reader, [])
        problems += _header_problems(header)
        if not problems:
            before: dict[str, tuple[str, Any]] = {}  # every row of an example repeats its prompt and token list
            for row in reader:
                try:
                    record = _record(header, row, before)
                    if not problems:
                        yield record
                except ValueError as error:
                    problems.append(f"line {line + 1}: {error}")
                    if len(problems) > _SHOWN_PROBLEMS:
                        break
                line = reader.line_num
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if problems:
        rest = ["and more problems"] if len(problems) > _SHOWN_PROBLEMS else []
        raise ResultsError(problems[:_SHOWN_PROBLEMS] + rest, path)


def _header_problems(header: Sequence[str]) -> list[str]:
    missing = [column.name for column in TABLE if not column.may_be_missing and column.name not in header]
    twice = sorted({column for column in header if column in COLUMNS and list(header).count(column) > 1})
    problems = [f"no column {', '.join(missing)}: not a file of interpretations"] if missing else []
    return problems + [f"column {column} occurs twice" for column in twice]


def _record(header: Sequence[str], row: Sequence[str], before: dict[str, tuple[str, Any]]) -> Record:
    """The record of a row. `before`: by column the cell of the row before and its value, shared where it is equal."""
    if len(row) != len(header):
        raise ValueError(f"{len(row)} cells where the header has {len(header)}")
    cells = dict(zip(header, row))
    there = [column for column in TABLE if column.name in cells]
    for column in there:
        cell = cells[column.name]
        if column.name not in before or before[column.name][0] != cell:
            before[column.name] = cell, column.form.parse(column.name, cell)
    record = Record(**{column.field: before[column.name][1] for column in there})
    per_token = [column for column in TABLE if column.form in PER_TOKEN]
    if len({len(getattr(record, column.field)) for column in per_token}) > 1:
        *names, last = (column.name for column in per_token)
        raise ValueError(f"{', '.join(names)} and {last} differ in length")
    return record
