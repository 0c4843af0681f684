"""Where an interpretation ends: at its prompt's stop, or in a loop."""

from __future__ import annotations

import pytest
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, InterpretationPromptSpec
from transformers.interpretation.prompts.stop import LOOP, STOP, Stop

TOKENIZER = tiny_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("Tokyo", None),
        ("Tokyo\n", STOP),
        ("\n", None),
        (" \n Tokyo", None),
        ("\nTokyo\nSyria", STOP),
        ("ababab", LOOP),
        ("ababa", None),
        ("aaa", LOOP),
        ("aa", None),
        ("1000", None),
        ("... ", None),
        ("...", None),
        ("....", LOOP),
        ("x, , , , ", LOOP),
        ("x, , , ", None),
        ("- - - ", None),
        ("- - - - ", LOOP),
        ("0000", None),
        ("1, 1, 1, 1, ", None),
        ("x    ", None),
        ("x yo yo yo", LOOP),
        ("x yo yo", None),
        (" yo yo yo", LOOP),
    ],
)
def test_what_ends_it(text, reached):
    assert Stop("\n", TOKENIZER).reached_by(ids(text)) == reached


@pytest.mark.parametrize(
    ("text", "left"),
    [("Tokyo\nSyria", "Tokyo"), ("\n Tokyo\nSyria", "\n Tokyo"), ("Tokyo", "Tokyo"), ("\n", "\n"), ("", "")],
)
def test_the_stop_and_what_follows_is_cut(text, left):
    assert Stop("\n", TOKENIZER).cut(text) == left


def test_a_stop_may_have_several_characters():
    stop = Stop("END", TOKENIZER)
    assert stop.reached_by(ids("an EN")) is None
    assert stop.reached_by(ids("an END")) == STOP
    assert stop.cut("an END of it") == "an "


def test_prompts_are_equal_by_the_stop_and_not_by_the_tokenizer():
    spec = InterpretationPromptSpec("p", text="it is _", stop="\n")
    assert spec.build(TOKENIZER) == spec.build(tiny_tokenizer())
    assert spec.build(TOKENIZER) != InterpretationPrompt.from_text(TOKENIZER, "it is _", name="p")
    assert "Stop(text='\\n')" in repr(spec.build(TOKENIZER))
