"""Questions in the {question} field of interpretation prompts."""

from __future__ import annotations

import json

import pytest
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, find_spec
from transformers.interpretation.errors.problems import ProblemsError
from transformers.interpretation.prompts.questions import ask

TOKENIZER = tiny_tokenizer()
PLAIN = InterpretationPromptSpec("plain", text="x: _ is")
SPEC = InterpretationPromptSpec("q", sequence=("x: ", 0, " {question} "))


def test_a_question_takes_the_place_of_the_field():
    for spec, text in (
        (SPEC, "x: _ Why? "),
        (InterpretationPromptSpec("q", text="{question} _ {question}"), "Why? _ Why?"),
        (InterpretationPromptSpec("q", text="Say: _", chat=True, reply="To {question} I say"), None),
    ):
        built = spec.asking("Why?").build(TOKENIZER)
        assert built.question == "Why?"
        if text is None:
            assert built.text.endswith("To Why? I say")
        else:
            assert built.text == text
            assert built.input_ids == tuple(TOKENIZER.encode(text))


def test_marks_in_a_question_are_no_placeholders():
    spec = InterpretationPromptSpec("q", text="x: _ is. {question}").asking("What is snake_case _ {question}?")
    built = spec.build(TOKENIZER)
    assert len(built.insert_locations) == 1
    assert built.text == "x: _ is. What is snake_case _ {question}?"


def test_every_prompt_is_asked_every_question():
    other = InterpretationPromptSpec("other", text="{question} _")
    asked = ask([SPEC, other], ["Why?", "Who?"])
    assert [(spec.name, spec.question) for spec in asked] == [
        ("q", "Why?"),
        ("q", "Who?"),
        ("other", "Why?"),
        ("other", "Who?"),
    ]
    built = PLAIN.build(TOKENIZER)
    assert ask([PLAIN, built], []) == [PLAIN, built]
    assert ask([asked[0]], []) == [asked[0]]


@pytest.mark.parametrize(
    ("prompts", "questions", "problems"),
    [
        ([PLAIN], ["Why?"], ["interpretation prompt 'plain': it has no field {question} for the question 'Why?'"]),
        ([SPEC, PLAIN], [], ["interpretation prompt 'q': it has the field {question}; give a question"]),
        ([SPEC], [" "], ["interpretation prompt 'q': the question is empty"]),
        (
            [PLAIN, SPEC],
            ["\ud800"],
            [
                "interpretation prompt 'plain': it has no field {question} for the question '\\ud800'",
                "interpretation prompt 'q': ' \\ud800 ' contains U+FFFF or half of a surrogate pair: no characters",
            ],
        ),
        (
            [PLAIN.build(TOKENIZER)],
            ["Why?"],
            ["interpretation prompt 'plain' has its tokens already: give its spec to ask it"],
        ),
    ],
)
def test_a_field_and_a_question_need_each_other(prompts, questions, problems):
    with pytest.raises(ProblemsError) as caught:
        ask(prompts, questions)
    assert list(caught.value.problems) == problems


def test_a_field_that_nothing_was_put_into_is_not_built():
    with pytest.raises(ValueError, match=r"it has the field \{question\}; give a question"):
        SPEC.build(TOKENIZER)


def test_files_and_the_built_in_prompt_have_fields(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"text": "{question} _"}))
    assert find_spec(tmp_path / "mine.json").asking("Why?").build(TOKENIZER).text == "Why? _"
    built = find_spec("ask").asking("Why?").build(TOKENIZER)
    assert built.text.endswith(" _ _\nQuestion: Why?\nAnswer:")
