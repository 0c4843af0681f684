"""Records as lines of CSV, and back.

Every list is JSON, floats are rounded to 6 decimals, and what does not exist is `null` (a list) or an empty cell.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models.layer_spec import insert_layer_of, insert_layer_text
from .record import COLUMNS, OK, Record

FIELDS = {column: column.replace(" ", "_") for column in COLUMNS}
_INTEGERS = ("layer_idx", "token_idx")
_LISTS: dict[str, tuple[str, tuple[type, ...]]] = {
    "prompt_token_list": ("strings", (str,)),
    "interpretation": ("token ids", (int,)),
    "interpretation_weights": ("numbers", (int, float, type(None))),
    "interpretation_prob": ("numbers", (int, float, type(None))),
}
NUMBER_LISTS = ("interpretation", "interpretation_weights", "interpretation_prob")
_DECIMALS = 6
_SHOWN_PROBLEMS = 20
_LARGEST_FIELD = 2**31 - 1  # of the csv module: a C long, 32 bits on Windows
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_TO_QUOTE = re.compile('[",\r\n]')


class ResultsError(ValueError):
    """A CSV that does not hold interpretations. `problems` lists what is wrong, one line each."""

    def __init__(self, path: str | Path, problems: Sequence[str]) -> None:
        self.problems = tuple(f"{path}: {problem}" for problem in problems)
        super().__init__("\n".join(self.problems))


def csv_header() -> str:
    """The first line of the CSV."""
    return _csv_line(COLUMNS)


def csv_rows(records: Iterable[Record], *, safe: bool = False) -> str:
    """The records as lines of CSV.

    `safe` guards against spreadsheets that take a cell for a formula: text that begins with = + - @, a tab or a
    carriage return gets a ' in front.
    """
    lines = (zip(COLUMNS, table_row(record)) for record in records)
    return "".join(_csv_line(_csv_cell(column, value, safe) for column, value in line) for line in lines)


def table_row(record: Record) -> Iterator[Any]:
    """The record's values in the order of COLUMNS: numbers rounded, lists as lists, None where there is nothing."""
    for column, name in FIELDS.items():
        value = getattr(record, name)
        if column in NUMBER_LISTS:
            yield [_rounded(number) for number in value] if record.status == OK else None
        elif column == "insert_layer":
            yield value if isinstance(value, int) else insert_layer_text(value)
        else:
            yield list(value) if column in _LISTS else value


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
                    self.share = file.buffer.tell() / size
                    yield record
                self.share = 1.0
        except UnicodeDecodeError as error:
            raise ResultsError(self.path, [f"not UTF-8: {error.reason}"]) from None
        except ResultsError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            problem = f"cannot read: {getattr(error, 'strerror', None) or error}"
            raise ResultsError(self.path, [problem]) from None


def _rounded(number: float | None) -> float | int | None:
    if number is None or isinstance(number, int):
        return number
    return round(number, _DECIMALS) if math.isfinite(number) else None


def _csv_cell(column: str, value: Any, safe: bool) -> str:
    if column in _LISTS:
        return json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value)
    return "'" + text if safe and text.startswith(_FORMULA_STARTS) else text


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
        header = next(reader, [])
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
        raise ResultsError(path, problems[:_SHOWN_PROBLEMS] + rest)


def _header_problems(header: Sequence[str]) -> list[str]:
    missing = [column for column in COLUMNS if column not in header]
    twice = sorted({column for column in header if column in COLUMNS and list(header).count(column) > 1})
    problems = [f"no column {', '.join(missing)}: not a file of interpretations"] if missing else []
    return problems + [f"column {column} is there twice" for column in twice]


def _record(header: Sequence[str], row: Sequence[str], before: dict[str, tuple[str, Any]]) -> Record:
    """The record of a row. `before`: texts and token lists of the row before, which are shared where they are equal."""
    if len(row) != len(header):
        raise ValueError(f"{len(row)} cells where the header has {len(header)}")
    cells = dict(zip(header, row))
    values: dict[str, Any] = {}
    for column, name in FIELDS.items():
        cell = cells[column]
        if column in NUMBER_LISTS:
            values[name] = _list(column, cell)
        elif column == "insert_layer":
            values[name] = insert_layer_of(cell)
        elif column in _INTEGERS:
            values[name] = None if column == "layer_idx" and cell == "" else _integer(column, cell)
        else:
            if column not in before or before[column][0] != cell:
                before[column] = (cell, _list(column, cell) if column in _LISTS else cell)
            values[name] = before[column][1]
    values["answer"] = values["answer"] or None
    record = Record(**values)
    lengths = {len(getattr(record, column)) for column in NUMBER_LISTS}
    if len(lengths) > 1:
        raise ValueError("interpretation, interpretation_weights and interpretation_prob differ in length")
    return record


def _integer(column: str, cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise ValueError(f"{column} must be a whole number, found {_shown(cell)}") from None


def _list(column: str, cell: str) -> tuple:
    wanted, types = _LISTS[column]
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        raise ValueError(f"{column} is not JSON: {_shown(cell)}") from None
    if value is None and column in NUMBER_LISTS:
        return ()
    good = isinstance(value, list) and all(isinstance(item, types) and not isinstance(item, bool) for item in value)
    if not good or any(isinstance(item, float) and not math.isfinite(item) for item in value):
        raise ValueError(f"{column} must be a list of {wanted}, found {_shown(cell)}")
    return tuple(value)


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 60 else cell[:57] + "...")
