"""What comes out: one `Record` per interpretation, and the table of them in memory and as CSV.

    results = interpret(model, tokenizer, "The capital of Italy is")
    results[0].interpretation_text
    results.dataframe()
    results.to_csv("interpretations.csv")
    read_csv("interpretations.csv")

The same with `to_parquet` and `read_parquet`.

Records and their columns are described in `results.record`, the form of the file in `results.csv_table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from .models.tokenizer import Tokenizer
from .results.calibration import BUILT_IN_CALIBRATION, Calibration
from .results.csv_table import CsvTable, csv_header, csv_rows, table_row
from .results.parquet import ParquetTable, encode, write_table
from .results.record import COLUMNS, Record, with_token_texts
from .results.samples import Agreement, agreements

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from .explorer import Explorer


class Interpretations(Sequence[Record]):
    """An immutable sequence of records that knows its table forms."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Interpretations: ...

    def __getitem__(self, index: int | slice) -> Record | Interpretations:
        if isinstance(index, slice):
            return Interpretations(self._records[index])
        return self._records[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interpretations) and self._records == other._records

    def __hash__(self) -> int:
        return hash(self._records)

    def __repr__(self) -> str:
        examples = len({record.name for record in self._records})
        return f"<{len(self)} interpretations of {examples} examples; .dataframe(), .to_csv(path)>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the report."""
        from .report import notebook_view

        return notebook_view(self)

    def explore(self, model: nn.Module, tokenizer: Tokenizer) -> Explorer:
        """The live page of a model, opened at the first example: a notebook shows it; elsewhere, open its `url`.

        It serves this machine alone, on a free port, from a thread of its own until its `close()`.

        Args:
            model, tokenizer: what interprets there; as for `interpret`.

        Raises:
            MissingPackageError: fastapi or uvicorn is not installed.
        """
        from .explorer import Explorer
        from .explorer.opening import opening

        return Explorer(model, tokenizer, opening=opening(self._records))

    def dataframe(self) -> DataFrame:
        """A pandas DataFrame with the columns of the CSV; lists are Python lists, None where there is nothing."""
        from pandas import DataFrame

        return DataFrame([list(table_row(record)) for record in self._records], columns=list(COLUMNS))

    def to_csv(self, path: str | Path, *, safe: bool = False) -> None:
        """Write the table; see `csv_table.csv_rows` for `safe`."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(csv_header())
            file.writelines(csv_rows([record], safe=safe) for record in self._records)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table with typed columns; numbers are not rounded."""
        write_table(Path(path), (encode(self._records[i : i + 256]) for i in range(0, len(self), 256)))

    def trusted(self, least: float, calibration: Calibration = BUILT_IN_CALIBRATION) -> Interpretations:
        """Those whose trust is at least `least`, from 0 to 1. None with an error is among them."""
        shares = ((record, calibration.trust(record.interpretation_weights)) for record in self._records)
        return Interpretations(record for record, share in shares if share is not None and share >= least)

    def agreements(self) -> list[Agreement]:
        """Of each cell with samples: what most of them say, and how many do."""
        return agreements(self._records)

    def with_token_texts(self, tokenizer: Tokenizer) -> Interpretations:
        """The same records with `interpretation_tokens` filled in from their token ids."""
        return Interpretations(with_token_texts(self._records, tokenizer))


def read_csv(path: str | Path) -> Interpretations:
    """The interpretations of a CSV with (at least) the columns of `COLUMNS`, in any order.

    Raises ResultsError with every problem (the first 20) and its line.
    """
    return Interpretations(CsvTable(path))


def read_parquet(path: str | Path) -> Interpretations:
    """The interpretations of a Parquet file with (at least) the columns of `COLUMNS`, in any order.

    Raises ResultsError.
    """
    return Interpretations(ParquetTable(path))
