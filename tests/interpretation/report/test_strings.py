"""Tokens and texts as a reader sees them."""

from __future__ import annotations

from dataclasses import replace

from report_records import grid_records
from transformers.interpretation.report.grid import examples_of
from transformers.interpretation.report.strings import encodable, inert, readable_tokens, visible

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


def test_byte_level_tokens_become_the_text_that_they_stand_for():
    assert readable_tokens(["The", "Ġcapital", "Ċ", "Ã©", "Ã"]) == ["The", " capital", "\n", "é", "Ã"]


def test_sentencepiece_tokens_become_the_text_that_they_stand_for():
    assert readable_tokens(["▁The", "<0x0A>", "<0xE6>", "s"]) == [" The", "\n", "<0xE6>", "s"]


def test_the_alphabet_is_told_from_the_whole_text():
    assert readable_tokens(["Ã©", "a"]) == ["Ã©", "a"]
    record = replace(RECORDS[0], current_token="Ã©", prompt_token_list=("Ã©", "Ġa"))
    assert examples_of([record])[0].columns[0].text == "é"


def test_what_cannot_be_seen_is_made_visible():
    assert visible(" is\n\tno\r") == "␣is⏎⇥no␍"
    assert visible("\u202eabc\x1b[31m\x00") == "⟨U+202E⟩abc⟨U+001B⟩[31m⟨U+0000⟩"
    assert encodable("a\ud800b") == "a\ufffdb"
    assert inert("two\nlines") == "two\nlines"
