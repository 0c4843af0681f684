"""What is refused before any work, and how prompts become plans."""

from __future__ import annotations

import pytest
from plans import LIMITS, SPEC, TOKENIZER, plan_of, problems_of
from tiny_models import tiny_model
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.runs.limits import Limits, PlanError
from transformers.interpretation.runs.planning import build_prompts


def test_a_prompt_is_a_user_turn_unless_raw():
    turn = plan_of([Example("x_1", "abc")]).sources[0]
    assert turn.text == "[INST] abc [/INST]"
    chat = plan_of([Example("x_1", "abc")], tokenizer=tiny_tokenizer(chat=True)).sources[0]
    assert chat.text == "<s>user:abc</s><s>assistant:"
    assert TOKENIZER.convert_ids_to_tokens(list(chat.input_ids))[:3] == ["<s>", "u", "s"]


def test_limits_of_a_model():
    assert Limits.of(tiny_model()) == Limits(n_layers=4, positions=512, vocabulary=128)


def test_all_problems_are_reported_together():
    found = problems_of(
        [Example("a_1", "x" * 64, raw=True), Example("b_2", "ok", raw=True), Example("c_3", "a\u00a0", raw=True)],
        [SPEC, SPEC, InterpretationPromptSpec("long", text="y" * 60 + " _")],
        limits=Limits(n_layers=4, positions=64, vocabulary=250),
        layers=Selection("0,9"),
        tokens=Selection("1,5"),
        insert_layer=4,
    )
    assert found == [
        "layers: 9 is out of range: there are 5 (0 to 4, or -1 to -5)",
        "insert layer 4 is out of range: 0 to 3",
        'two interpretation prompts are named "short"; their rows could not be distinguished',
        'interpretation prompt "long": has 62 tokens and 8 new ones; the model takes 64',
        "a_1: has 64 tokens and 1 new ones; the model takes 64",
        "b_2: tokens: 5 is out of range: there are 2 (0 to 1, or -1 to -2)",
        f"c_3: has token id {TOKENIZER.vocab['ł']}, the model knows 250: is it the model's own tokenizer?",
        "c_3: tokens: 5 is out of range: there are 3 (0 to 2, or -1 to -3)",
    ]


def test_a_model_that_does_not_say_its_length_has_none():
    unlimited = Limits(n_layers=4, positions=None, vocabulary=None)
    assert len(plan_of([Example("a_1", "x" * 500, raw=True)], limits=unlimited).sources[0].input_ids) == 500


def test_a_layer_to_insert_at_that_is_none():
    place = [Example("a_1", "abc", raw=True)]
    assert plan_of(place, insert_layer="same", layers=Selection(":4")).layers == (0, 1, 2, 3)
    assert problems_of(place, insert_layer="same") == [
        "insert layer same: hidden state 4 comes after the last decoder layer, so it is no layer's input; choose among "
        'layers ":4"'
    ]
    assert problems_of(place, insert_layer=(0, 4)) == ["insert layer 4 is out of range: 0 to 3"]
    with pytest.raises(PlanError, match="insert layer same: vectors come from no layer; name the one to insert them"):
        build_prompts(TOKENIZER, [SPEC], LIMITS, InterpretationSettings(insert_layer="same"))


def test_a_strength_per_placeholder_fits_every_prompt():
    several = InterpretationSettings(overlay_strength=(1, 0.5), max_new_tokens=8)
    two = InterpretationPromptSpec("two", text="x: _ _ is")
    assert build_prompts(TOKENIZER, [two], LIMITS, several)[0].name == "two"
    with pytest.raises(PlanError, match='"short" has 1 placeholders and overlay_strength 2 numbers; give one number'):
        build_prompts(TOKENIZER, [two, SPEC], LIMITS, several)


def test_prompts_are_built_or_refused():
    built = build_prompts(TOKENIZER, [SPEC], LIMITS, InterpretationSettings(max_new_tokens=3))
    assert [prompt.name for prompt in built] == ["short"]
    assert build_prompts(TOKENIZER, built, LIMITS, InterpretationSettings()) == built
    with pytest.raises(PlanError, match="insert layer 7 is out of range: 0 to 3"):
        build_prompts(TOKENIZER, [SPEC], LIMITS, InterpretationSettings(insert_layer=7))
