"""FunctionOverrides: when one is named, and at which layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_records import failed, grid_records
from transformers.interpretation.report import (
    answer_shares,
)
from transformers.interpretation.report.grid import names_answer

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


@pytest.mark.parametrize(
    ("text", "named"),
    [(" Tokyo: a city", True), ("the city of TOKYO.", True), (" Tokyoites", False), ("eTokyo", False), ("", False)],
)
def test_an_answer_counts_as_a_whole_word_only(text, named):
    assert names_answer(replace(RECORDS[0], interpretation_text=text, answer="Tokyo")) is named


def test_no_answer_is_never_named():
    assert not names_answer(replace(RECORDS[0], answer=None))
    assert not names_answer(replace(failed(RECORDS[0]), interpretation_text="Tokyo"))


def test_shares_by_layer_count_examples_not_cells():
    def record(name, layer, token, text, source="prompt", answer="Rome"):
        return replace(
            RECORDS[0], name=name, prompt=name, layer_idx=layer, token_idx=token, interpretation_text=text,
            token_source=source, answer=answer,
        )  # fmt: skip

    records = [
        record("a", 0, 0, "nothing"),
        record("a", 1, 0, "Rome"),
        record("a", 1, 1, "Rome again"),
        record("b", 0, 0, "nothing"),
        record("b", 0, 2, "Rome", source="output"),  # the model has said it: no evidence
        record("b", 1, 0, "Romeo"),
        record("c", 1, 0, "Rome", answer=None),
    ]
    assert answer_shares(records) == {"describe": {0: 0.0, 1: 0.5}}
    elsewhere = [replace(record, token_source=f"{record.token_source}, mlp_output") for record in records]
    assert answer_shares([*records, *elsewhere]) == {
        "describe": {0: 0.0, 1: 0.5},
        "describe · mlp output": {0: 0.0, 1: 0.5},
    }
