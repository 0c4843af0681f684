"""Vectors or prompts whose labels are known, from a table.

    table = read_labelled(Path("topics.csv"))       # columns prompt and label; or vector and label
    table.labels, table.prompts, table.vectors, table.splits

CSV (a vector is a JSON list), JSON lines, or Parquet. A column `split` says what a row is for: training, validation, or
test, which training does not see.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .formats import open_vectors
from .parquet_rows import ColumnStream, has_column
from .vector_file import VectorsError

TRAINING, VALIDATION, TEST = "training", "validation", "test"
SPLITS = (TRAINING, VALIDATION, TEST)
_COLUMNS = ("prompt", "vector", "label", "split")
_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True, eq=False)
class Labelled:
    """The rows of a table, in order; either prompts or vectors."""

    labels: tuple[str, ...]
    prompts: tuple[str, ...] | None
    vectors: Tensor | None
    """`[n, hidden]`, float32."""
    splits: tuple[str, ...] | None
    """Of SPLITS; None where there is no such column."""

    def of(self, *splits: str) -> Labelled:
        """The rows of these splits; all where there are none."""
        if self.splits is None:
            return self
        rows = [row for row, split in enumerate(self.splits) if split in splits]
        return Labelled(
            tuple(self.labels[row] for row in rows),
            None if self.prompts is None else tuple(self.prompts[row] for row in rows),
            None if self.vectors is None else self.vectors[rows],
            tuple(self.splits[row] for row in rows),
        )


def read_labelled(path: Path) -> Labelled:
    """Raises VectorsError, in one line that names the file, the row, and what was expected."""
    columns: dict[str, list[Any]] = {}
    try:
        for number, row in enumerate(_rows(path), start=1):
            if not columns:
                columns = {name: [] for name in _COLUMNS if name in row}
                _check_columns(path, columns, row)
            for name, values in columns.items():
                values.append(_value(name, row.get(name), f"{path}, row {number}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VectorsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not columns:
        raise VectorsError(f"{path}: found no rows")
    vectors = _vectors(path, columns.get("vector"))
    prompts, splits = (tuple(columns[name]) if name in columns else None for name in ("prompt", "split"))
    return Labelled(tuple(columns["label"]), prompts, vectors, splits)


def _check_columns(path: Path, found: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if "label" not in found or ("prompt" in found) == ("vector" in found):
        names = ", ".join(map(str, row)) or "none"
        raise VectorsError(f"{path}: found columns {names}; expected label, and either prompt or vector")


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    elif suffix == ".jsonl":
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _object(line, f"{path}, line {number}")
    elif suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in _PICKLED:
        raise VectorsError(f"{path} is pickled, and could run code; expected .csv, .jsonl or .parquet")
    else:
        raise VectorsError(f"{path}: expected .csv, .jsonl or .parquet")


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise VectorsError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise VectorsError(f"{where}: found {found!r}, expected an object")
    return found


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """Vectors as tensors, which are a hundredth of lists."""
    if not path.exists():
        raise VectorsError(f"there is no {path}")
    names = [name for name in _COLUMNS if has_column(path, name)]
    streams = {name: ColumnStream(path, name) for name in names if name != "vector"}
    if "vector" in names:
        file = open_vectors(path, column="vector")
        n, vectors = file.n, file
    else:
        import pyarrow.parquet as pq

        n, vectors = pq.read_metadata(path).num_rows, None
    if not names and n:
        yield {}
    for start in range(0, n if names else 0, 256):
        stop = min(start + 256, n)
        parts = {name: stream.read(start, stop).to_pylist() for name, stream in streams.items()}
        if vectors is not None:
            parts["vector"] = list(vectors.rows(start, stop))
        yield from (dict(zip(parts, values)) for values in zip(*parts.values()))


def _value(name: str, value: Any, where: str) -> Any:
    if name == "vector":
        return value if isinstance(value, Tensor) else _vector(value, where)
    if not isinstance(value, str) or not value.strip():
        raise VectorsError(f"{where}: found {name} {value!r}, expected a text that is not empty")
    if name == "split" and value not in SPLITS:
        raise VectorsError(f"{where}: found split {value!r}, expected one of {', '.join(SPLITS)}")
    return value


def _vector(value: Any, where: str) -> Tensor:
    try:
        numbers = json.loads(value) if isinstance(value, str) else value
        if isinstance(numbers, list) and numbers and not any(isinstance(one, (str, bool, list)) for one in numbers):
            return torch.tensor(numbers, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, RecursionError):
        pass
    raise VectorsError(f"{where}: found no vector; expected a list of numbers")


def _vectors(path: Path, rows: list[Tensor] | None) -> Tensor | None:
    if rows is None:
        return None
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise VectorsError(f"{path}, row {number}: found a vector of {len(row)} numbers, expected {len(rows[0])}")
    return torch.stack(rows)
