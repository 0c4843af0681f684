"""Whether a text names an answer, or begins with it."""

from __future__ import annotations

import pytest
from transformers.interpretation.measures import (
    names,
    recovery,
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("It is Paris.", True),
        ("PARIS", True),
        (" Paris\nFrance", True),
        ("Parisian", False),
        ("comparis", False),
        ("Paris_1", False),
        ("Pari s", False),
        ("«Paris»", True),
    ],
)
def test_an_answer_counts_as_a_whole_word(text, named):
    assert names("Paris", text) is named


def test_an_answer_of_several_words_or_signs_is_plain_text():
    assert names("New York", "in new york city")
    assert not names("a.c", "abc")


@pytest.mark.parametrize(
    ("text", "begins"),
    [(" Rome.", True), (" the rome", True), (' "Rome"', True), (" Romeo", False), (" in Rome", False)],
)
def test_a_completion_begins_with_the_answer(text, begins):
    assert recovery._begins("Rome", text) is begins
