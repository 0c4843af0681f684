"""The tables of causal classes in the documents are those of the stored outcomes, none of which is wrong."""

from __future__ import annotations

import every_model_table as table

STORED = {
    "4.34.0": {"AForCausalLM": "equal", "BLMHeadModel": "refused: generate"},
    "5.0.0": {"AForCausalLM": "slower", "BLMHeadModel": "refused", "CForCausalLM": "equal", "D": "not built"},
}


def record(outcome="equal", why="", **checks):
    found = dict.fromkeys(table.CHECKS, "equal") | checks
    return {"outcome": outcome, **found, **{f"{name}: why": why for name in table.CHECKS}}


def test_outcomes_in_a_word():
    assert table.outcome(record()) == "equal"
    assert table.outcome(record(why="its text is read again, which is slower")) == "slower"
    assert table.outcome(record("refused", generate="refused")) == "refused: generate"
    assert table.outcome(record("refused", **dict.fromkeys(table.CHECKS, "refused"))) == "refused"
    assert table.outcome({"outcome": "not built"}) == "not built"


def test_the_counts_and_the_exceptions():
    counts, exceptions = table.tables(STORED).split("\n\n")
    assert counts.splitlines()[2:] == ["| 4.34.0 | 1 | 0 | 1 | 0 | 0 | 2 |", "| 5.0.0 | 2 | 1 | 1 | 1 | 0 | 0 |"]
    assert exceptions.splitlines()[2:] == [
        "| A | equal | slower |",
        "| B | refused: generate | refused |",
        "| D | – | not built |",
    ]


def test_the_document_has_the_tables_of_what_is_stored():
    """Where this fails: python tests/every_model_table.py --write."""
    document = table.DOCUMENT.read_text(encoding="utf-8")
    assert table.written(document, table.read()) == document


def test_nothing_that_is_stored_is_wrong():
    outcomes = {one for of_version in table.read().values() for one in of_version.values()}
    assert {one.partition(":")[0] for one in outcomes} <= {"equal", "slower", "refused", "not built"}
