"""Columns of the table: name, type, form in memory, CSV and Parquet, and meaning.

    answer: str | None = column(TEXT_OR_NONE, "the right answer, if the example has one", default=None)

A field of `record.Record` that is declared like this is a column. CSV, Parquet, the check on reading and the table in
the documentation (`record.columns_as_markdown`) follow from the declaration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..models.layer_spec import insert_layer_of, insert_layer_text

_DECIMALS = 6


@dataclass(frozen=True)
class Form:
    """How the values of a column are written and read. This one: text."""

    title: str
    """For the documentation."""
    arrow: str = "string"
    """Alias of the Arrow type, of a list that of its items."""
    optional: bool = False
    """Whether a value may be None: an empty cell of the CSV, null in Parquet."""

    is_list = False

    def rounded(self, value: Any) -> Any:
        """From a record to a data frame and, by `cell`, to CSV."""
        return value

    def cell(self, value: Any) -> str:
        """From `rounded` to CSV."""
        return "" if value is None else str(value)

    def exact(self, value: Any) -> Any:
        """From a record to Parquet."""
        return value

    def parse(self, name: str, cell: str) -> Any:
        """From CSV to a record. name: the column's, for the ValueError."""
        return None if self.optional and cell == "" else cell

    def restore(self, value: Any) -> Any:
        """From Parquet to a record."""
        return value


@dataclass(frozen=True)
class WholeNumber(Form):
    def parse(self, name: str, cell: str) -> int | None:
        try:
            return None if self.optional and cell == "" else int(cell)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, found {_shown(cell)}") from None


@dataclass(frozen=True)
class InsertLayers(Form):
    """See `layer_spec.InsertLayer`."""

    def rounded(self, value: Any) -> int | str:
        return value if isinstance(value, int) else insert_layer_text(value)

    def exact(self, value: Any) -> str:
        return insert_layer_text(value)

    def parse(self, name: str, cell: str) -> Any:
        return insert_layer_of(cell)

    def restore(self, value: str) -> Any:
        return insert_layer_of(value)


@dataclass(frozen=True)
class ListOf(Form):
    """A tuple of a record: JSON in CSV, a list in Parquet; an optional one is null where it does not exist."""

    items: tuple[type, ...] = (str,)

    is_list = True

    def rounded(self, value: Sequence | None) -> list | None:
        return None if value is None else list(value)

    def cell(self, value: list | None) -> str:
        return json.dumps(value, ensure_ascii=False)

    def parse(self, name: str, cell: str) -> tuple:
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            raise ValueError(f"{name} is not JSON: {_shown(cell)}") from None
        if value is None and self.optional:
            return ()
        good = isinstance(value, list) and all(isinstance(one, self.items) and type(one) is not bool for one in value)
        if not good or any(isinstance(one, float) and not math.isfinite(one) for one in value):
            raise ValueError(f"{name} must be a {self.title}, found {_shown(cell)}")
        return tuple(value)

    def restore(self, value: list | None) -> tuple:
        return tuple(value or ())


@dataclass(frozen=True)
class Numbers(ListOf):
    """What is not finite is null, as one number of the list."""

    def rounded(self, value: Sequence | None) -> list | None:
        exact = self.exact(value)
        return exact and [round(number, _DECIMALS) if isinstance(number, float) else number for number in exact]

    def exact(self, value: Sequence | None) -> list | None:
        if value is None:
            return None
        return [None if isinstance(one, float) and not math.isfinite(one) else one for one in value]


TEXT = Form("text")
TEXT_OR_NONE = Form("text", optional=True)
WHOLE_NUMBER = WholeNumber("whole number", "int32")
WHOLE_NUMBER_OR_NONE = WholeNumber("whole number", "int32", optional=True)
INSERT_LAYERS = InsertLayers("text")
STRINGS = ListOf("list of strings")
TOKEN_IDS = ListOf("list of token ids", "int32", optional=True, items=(int,))
NUMBERS = Numbers("list of numbers", "float64", optional=True, items=(int, float, type(None)))
PER_TOKEN = (TOKEN_IDS, NUMBERS)
"""The forms of what a record has of each token of its interpretation: they are equally long."""


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    name: str
    field: str
    """Of the record."""
    form: Form
    meaning: str
    """In Markdown."""
    may_be_missing: bool = False
    """Files of versions that did not have it are read as if it held nothing."""


def column(form: Form, meaning: str, *, name: str | None = None, **default: Any) -> Any:
    """A field of a dataclass that is a column. name: where it is not the field's own."""
    return field(metadata={"column": (name, form, meaning)}, **default)


def columns_of(record: type) -> tuple[Column, ...]:
    """The columns that a dataclass declares, in order."""
    declared = [(one, *one.metadata["column"]) for one in fields(record) if "column" in one.metadata]
    return tuple(
        Column(name or field.name, field.name, form, meaning, field.default is None)
        for field, name, form, meaning in declared
    )


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 60 else cell[:57] + "...")
