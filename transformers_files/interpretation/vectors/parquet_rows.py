"""Vectors in a column of a Parquet file: lists of equally many numbers. Another column may have their names.

A Parquet file is decoded from front to back. Reading goes on where the last one ended, and starts over, at a row group,
where rows further in front are asked for: a process that reads ever later rows decodes the file once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors.suggestions import did_you_mean
from .vector_file import VectorsError

if TYPE_CHECKING:
    import pyarrow

_ROWS_AT_ONCE = 256
_READ_BYTES = 1 << 20
"""Of a column at once; without a limit a whole column chunk, which may be the whole file, would be read first."""


class ColumnStream:
    """One column, of which some rows in the neighbourhood of the last ones are read."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._batches: Iterator[tuple[int, pyarrow.Array]] = iter(())
        self._at = -1
        """Number of the first row of the batch at hand; −1: there is none."""
        self._batch: pyarrow.Array | None = None

    def read(self, start: int, stop: int) -> pyarrow.Array:
        """Raises VectorsError."""
        import pyarrow as pa

        with _reported(self._path):
            if self._batch is None or start < self._at:
                self._batches = _batches(self._path, self._column, start)
                self._at, self._batch = next(self._batches)
            parts = []
            while start < stop:
                while start >= self._at + len(self._batch):
                    self._at, self._batch = next(self._batches)
                part = self._batch.slice(start - self._at, stop - start)
                parts.append(part)
                start += len(part)
            return pa.concat_arrays(parts) if parts else self._batch.slice(0, 0)


class ParquetRows:
    """The vectors of a column."""

    def __init__(self, path: Path, column: str, n: int, hidden: int) -> None:
        self.n = n
        self.hidden = hidden
        self._path = path
        self._stream = ColumnStream(path, column)

    def read(self, start: int, stop: int) -> Tensor:
        import numpy as np

        found = self._stream.read(start, stop)
        numbers = found.flatten().to_numpy(zero_copy_only=False)
        if len(numbers) != (stop - start) * self.hidden:
            raise VectorsError(
                f"{self._path}: rows {start} to {stop - 1} have {len(numbers)} numbers; expected {self.hidden} each"
            )
        return torch.from_numpy(np.array(numbers, dtype=np.float32)).view(stop - start, self.hidden)


class ParquetNames:
    """The names in a column of the vectors' file."""

    def __init__(self, path: Path, column: str) -> None:
        self.digest = f"column {column}"
        self._stream = ColumnStream(path, column)

    def read(self, start: int, stop: int) -> list[str]:
        return ["" if name is None else str(name) for name in self._stream.read(start, stop).to_pylist()]


def open_parquet(path: Path, column: str) -> ParquetRows:
    """Raises VectorsError."""
    import pyarrow as pa

    with _reported(path), _opened(path) as file:
        schema, data = file.schema_arrow, file.metadata
        if column not in schema.names:
            meant, known = did_you_mean(column, schema.names), ", ".join(schema.names)
            raise VectorsError(f'{path} has no column "{column}"{meant}; choose one with --vector-column: {known}')
        kind = schema.field(column).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not is_list or not pa.types.is_floating(kind.value_type):
            raise VectorsError(f"{path}, column {column}: found {kind}; expected lists of floating point numbers")
        if data.num_rows == 0:
            return ParquetRows(path, column, 0, 0)
        hidden = len(next(file.iter_batches(1, columns=[column])).column(0)[0].as_py() or ())
        return ParquetRows(path, column, data.num_rows, hidden)


def has_column(path: Path, column: str) -> bool:
    """Whether a Parquet file has it. Raises VectorsError."""
    import pyarrow.parquet as pq

    with _reported(path):
        return column in pq.read_schema(path).names


def _batches(path: Path, column: str, start: int) -> Iterator[tuple[int, pyarrow.Array]]:
    """The column in parts, from the row group on that has row `start`, with the number of each part's first row."""
    with _opened(path) as file:
        groups = file.metadata.num_row_groups
        first, skipped = 0, 0
        while first < groups - 1 and skipped + file.metadata.row_group(first).num_rows <= start:
            skipped += file.metadata.row_group(first).num_rows
            first += 1
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=list(range(first, groups)), columns=[column]):
            yield skipped, batch.column(0)
            skipped += batch.num_rows


def _opened(path: Path) -> pyarrow.parquet.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except VectorsError:
        raise
    except (OSError, ValueError, StopIteration, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "it ends too early"
        raise VectorsError(f"{path} cannot be read as Parquet, it may be cut off: {reason}") from None
