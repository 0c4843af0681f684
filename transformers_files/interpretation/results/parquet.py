"""Records as Parquet, and back: the columns of the CSV with their types, and numbers as they are, not rounded.

A Parquet file ends with an index of what it holds, so it cannot grow. Until a run is complete its chunks are kept as
`encode` makes them, each a small Arrow stream; `write_table` makes the file of them, a row group at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import STRINGS, Column
from .csv_table import ResultsError
from .record import COLUMNS, TABLE, Record, table_value

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP = 2**14
ROW_GROUP_BYTES = 2**26
"""A row group ends after so many rows, or Arrow bytes: it is what memory has to hold."""
_ROWS_AT_ONCE = 256


def schema() -> pyarrow.Schema:
    """The columns of a record as Arrow types."""
    import pyarrow as pa

    types = [pa.type_for_alias(column.form.arrow) for column in TABLE]
    return pa.schema(
        [(column.name, pa.list_(one) if column.form.is_list else one) for column, one in zip(TABLE, types)]
    )


def encode(records: Sequence[Record]) -> bytes:
    """Records as an Arrow stream."""
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema()) as stream:
        stream.write_batch(_batch(records))
    return sink.getvalue()


def write_table(path: Path, pieces: Iterable[bytes]) -> None:
    """A Parquet file of what `encode` has made, on the disk when this returns. Memory holds one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(path, "wb") as file:
        with pq.ParquetWriter(file, schema()) as writer:
            waiting: list[pa.RecordBatch] = []
            for piece in pieces:
                waiting += pa.ipc.open_stream(piece)
                rows, size = (sum(getattr(batch, name) for batch in waiting) for name in ("num_rows", "nbytes"))
                if rows >= ROW_GROUP or size >= ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
        file.flush()
        os.fsync(file.fileno())


class ParquetTable:
    """The records of a Parquet file with (at least) the columns of `COLUMNS`, a few hundred rows in memory at once.

    Iterating raises ResultsError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.share = 0.0
        """How much of the file has been read, from 0 to 1."""

    def __iter__(self) -> Iterator[Record]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                problems = _problems(file.schema_arrow)
                if problems:
                    raise ResultsError(problems, self.path)
                for number, record in enumerate(_records(file), start=1):
                    self.share = number / file.metadata.num_rows
                    yield record
                self.share = 1.0
        except ResultsError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            problem = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise ResultsError([f"cannot read: {problem}"], self.path) from None


def _batch(records: Sequence[Record]) -> pyarrow.RecordBatch:
    import pyarrow as pa

    columns = [[column.form.exact(table_value(record, column)) for record in records] for column in TABLE]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema())]
    return pa.RecordBatch.from_arrays(arrays, schema=schema())


def _problems(found: pyarrow.Schema) -> list[str]:
    there = {column.name for column in TABLE if found.names.count(column.name) == 1}
    absent = {column.name for column in TABLE if column.may_be_missing and column.name not in found.names}
    missing = [column for column in COLUMNS if column not in there | absent]
    if missing:
        return [f"no column {', '.join(missing)} (or it occurs twice): not a file of interpretations"]
    return [
        f"column {field.name} must be of type {field.type}, found {found.field(field.name).type}"
        for field in schema()
        if field.name in there and found.field(field.name).type != field.type
    ]


def _records(file: pyarrow.parquet.ParquetFile) -> Iterator[Record]:
    before: dict[str, tuple[Any, Any]] = {}
    there = [column for column in TABLE if column.name in file.schema_arrow.names]
    fields = [column.field for column in there]
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column.name for column in there]):
        for row in zip(*(_restored(column, batch.column(column.name), before) for column in there)):
            yield Record(**dict(zip(fields, row)))


def _restored(column: Column, values: pyarrow.Array, before: dict[str, tuple[Any, Any]]) -> Iterator[Any]:
    """What a record has. Lists of strings are read only where they change: every row of an example repeats a long one.

    before: the last such list of the batch before.
    """
    if column.form is not STRINGS:
        yield from map(column.form.restore, values.to_pylist())
        return
    for value in values:
        if column.name not in before or value != before[column.name][0]:
            before[column.name] = value, column.form.restore(value.as_py())
        yield before[column.name][1]
