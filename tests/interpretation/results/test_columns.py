"""Columns: one declaration each, from which everything else follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from transformers.interpretation.results import parquet
from transformers.interpretation.results.columns import TEXT_OR_NONE, WHOLE_NUMBER, column, columns_of
from transformers.interpretation.results.record import COLUMNS, columns_as_markdown

TREE = Path(__file__).resolve().parents[3]


def test_the_names_and_types_that_files_have():
    """Written out: a file of an earlier version must be read by a later one."""
    strings, numbers = pa.list_(pa.string()), pa.list_(pa.float64())
    wanted = {
        "name": pa.string(),
        "category": pa.string(),
        "prompt": pa.string(),
        "prompt_output": pa.string(),
        "prompt_token_list": strings,
        "layer_idx": pa.int32(),
        "token_idx": pa.int32(),
        "current token": pa.string(),
        "repeat_prompt": pa.string(),
        "repeat_prompt_name": pa.string(),
        "interpretation": pa.list_(pa.int32()),
        "interpretation_text": pa.string(),
        "interpretation_weights": numbers,
        "interpretation_prob": numbers,
        "token_source": pa.string(),
        "insert_layer": pa.string(),
        "status": pa.string(),
        "answer": pa.string(),
        "sample": pa.int32(),
        "question": pa.string(),
        "insert_place": pa.string(),
    }
    assert tuple(wanted) == COLUMNS
    assert parquet.schema() == pa.schema(list(wanted.items()))


def test_a_declared_field_is_a_column_and_another_is_none():
    @dataclass(frozen=True)
    class Row:
        depth: int = column(WHOLE_NUMBER, "how deep", name="the depth")
        note: str | None = column(TEXT_OR_NONE, "if any", default=None)
        hidden: int = 0

    assert [(one.name, one.field, one.meaning) for one in columns_of(Row)] == [
        ("the depth", "depth", "how deep"),
        ("note", "note", "if any"),
    ]
    assert Row(3) == Row(depth=3, note=None)
    assert TEXT_OR_NONE.parse("note", "") is None


def test_the_documentation_has_the_table_of_columns():
    """Where this fails, put in what `columns_as_markdown()` gives."""
    pages = [*TREE.glob("*.md"), *TREE.glob("*/*.md")]
    assert [page.name for page in pages if columns_as_markdown() in page.read_text(encoding="utf-8")] == ["README.md"]
