"""Interpretation prompts in whatever form they are given, several prompts, pairs and the progress bar."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, interpret, interpret_vectors, selfie
from transformers.interpretation.prompt_argument import prompts_of

TOKENIZER = tiny_tokenizer()
SEQUENCE = ("ab:", 0, 0, "is")


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def vectors(n):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(3))


def texts(results):
    return [record.interpretation for record in results]


def test_a_raw_sequence_is_a_prompt(model):
    made = InterpretationPrompt.from_sequence(TOKENIZER, SEQUENCE)
    asked = {"max_new_tokens": 4}
    expected = interpret_vectors(model, TOKENIZER, vectors(2), interpretation_prompt=made, **asked)
    for given in (SEQUENCE, list(SEQUENCE), [SEQUENCE], [made]):
        assert texts(interpret_vectors(model, TOKENIZER, vectors(2), interpretation_prompt=given, **asked)) == texts(
            expected
        )


def test_the_two_prompts_of_that_name_work_in_each_others_functions(model):
    theirs = selfie.InterpretationPrompt(TOKENIZER, SEQUENCE)
    ours = InterpretationPrompt.from_sequence(TOKENIZER, SEQUENCE)
    plain = {"insert_layer": 1, "guidance": 0, "max_new_tokens": 4}
    found = interpret_vectors(model, TOKENIZER, vectors(2), interpretation_prompt=theirs, **plain)
    assert [record.interpretation_text for record in found] == selfie.interpret_vectors(
        vectors(2), model, theirs, TOKENIZER, max_new_tokens=4
    )
    found = interpret_vectors(model, TOKENIZER, vectors(2), interpretation_prompt=ours, **plain)
    assert [record.interpretation_text for record in found] == selfie.interpret_vectors(
        vectors(2), model, ours, TOKENIZER, max_new_tokens=4
    )


@pytest.mark.parametrize("given", [5, object(), [5.0], [None], ["object", 3.5]])
def test_anything_else_is_named(given):
    with pytest.raises(ValueError, match=r"an interpretation prompt is a name, a path, .* a sequence of text and ints"):
        prompts_of(given)


def test_one_vector(model):
    one = vectors(1)
    asked = {"interpretation_prompt": SEQUENCE, "max_new_tokens": 4}
    assert texts(interpret_vectors(model, TOKENIZER, one[0], **asked)) == texts(
        interpret_vectors(model, TOKENIZER, one, **asked)
    )


def test_vectors_with_their_own_prompts(model):
    prompts = [SEQUENCE, ("b", 0), ("say", 0, "so")]
    found = interpret_vectors(
        model, TOKENIZER, vectors(3), interpretation_prompt=prompts, pairwise=True, max_new_tokens=4
    )
    alone = [
        texts(interpret_vectors(model, TOKENIZER, row, interpretation_prompt=prompt, max_new_tokens=4))[0]
        for row, prompt in zip(vectors(3), prompts)
    ]
    assert texts(found) == alone
    assert [record.token_idx for record in found] == [0, 1, 2]
    with pytest.raises(ValueError, match="pairwise: 3 interpretation prompts for 2 vectors; give one each"):
        interpret_vectors(model, TOKENIZER, vectors(2), interpretation_prompt=prompts, pairwise=True)


def test_several_prompts_are_several_examples(model):
    asked = {"layers": [1, 2], "tokens": "last", "interpretation_prompt": SEQUENCE, "max_new_tokens": 4, "raw": True}
    found = interpret(model, TOKENIZER, ["Hello", "Hi"], **asked)
    assert [record.name for record in found] == ["example_1", "example_1", "example_2", "example_2"]
    alone = [interpret(model, TOKENIZER, text, **asked) for text in ("Hello", "Hi")]
    assert texts(found) == [*texts(alone[0]), *texts(alone[1])]


def test_a_progress_bar_where_it_is_asked_for(model, capsys):
    asked = {"interpretation_prompt": SEQUENCE, "max_new_tokens": 2, "raw": True, "tokens": "last"}
    interpret(model, TOKENIZER, "Hello", **asked)
    assert capsys.readouterr().err == ""
    interpret(model, TOKENIZER, "Hello", progress=True, **asked)
    assert "5/5" in capsys.readouterr().err
    interpret_vectors(model, TOKENIZER, vectors(3), interpretation_prompt=SEQUENCE, max_new_tokens=2, progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "mark", "word"),
    [("say next x", "x", "next"), ("xylophone: x", "x", "xylophone"), ("a_b is _", "_", "a_b")],
)
def test_a_mark_within_a_word_is_said(text, mark, word):
    with pytest.warns(UserWarning, match=f"the placeholder '{mark}' stands within '{word}' and is taken for one"):
        InterpretationPrompt.from_text(TOKENIZER, text, placeholder=mark)


@pytest.mark.parametrize(("text", "mark"), [("XXX is", "X"), ("the _, or _ _", "_"), ("[x] x", "x")])
def test_marks_by_themselves_are_fine(text, mark, recwarn):
    InterpretationPrompt.from_text(TOKENIZER, text, placeholder=mark)
    assert not recwarn.list
