"""The user's text reaches the model whatever the chat template is, or the template is refused by name."""

from __future__ import annotations

import inspect
import sys
import warnings
from datetime import datetime

import pytest
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from tokenizers import processors
from transformers.interpretation import InterpretationPrompt, interpret, selfie
from transformers.interpretation.models.chat_template import ChatTemplateError, encode_prompt, user_turn
from transformers.interpretation.prompts.interpretation_prompt import BUILT_IN, InterpretationPromptSpec

PARTS = (
    "{% for message in messages %}USER: {% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endfor %}{% endfor %} ASSISTANT:"
)
PARTS_OR_ERROR = "{% for m in messages %}<{{ m['content'][0]['text'] + '' }}>{% endfor %}"
DATED = (
    "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}{% else %}an undated day{% endif %}: "
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
)
TRIMMED = "{% for message in messages %}U:{{ message['content'] | trim }}:A{% endfor %}"


RENDERER = sys.modules.get("transformers.utils.chat_template_utils")
TELLS_THE_TIME = RENDERER is not None and "strftime_now" in inspect.getsource(RENDERER)
"""Whether this version of transformers does, to chat templates."""


def tokenizer_of(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_content_comes_in_parts_where_the_template_wants_it_so():
    tokenizer = tokenizer_of(PARTS)
    assert user_turn(tokenizer, "Hello there") == "USER: Hello there ASSISTANT:"
    assert user_turn(tokenizer, "A") == "USER: A ASSISTANT:"
    assert user_turn(tokenizer_of(PARTS_OR_ERROR), "Hi") == "<Hi>"


@pytest.mark.parametrize("text", ["x", " spaced\n out ", "\n", "A", "</s>", "{{ 7 * 7 }}", "U:A"])
def test_white_space_is_the_templates_own_affair(text):
    assert user_turn(tokenizer_of(TRIMMED), text) == f"U:{text.strip()}:A"


@pytest.mark.parametrize(
    ("filtered", "told"),
    [
        ("'nothing'", "drops what the user says"),
        ("message['content'] | upper", "changes the text 'Hello there, A'"),
        ("message['content'][:5]", "changes the text 'Hello there, A'"),
        ("message['content'].replace('e', '')", "changes the text 'Hello there, A'"),
        ("message['content'] ~ raise_exception('only tools may speak')", "fails (only tools may speak)"),
        ("message['content'] | no_such_filter", "fails (No filter named 'no_such_filter'.)"),
    ],
)
def test_a_template_that_loses_or_changes_the_text_is_refused_by_name(filtered, told):
    tokenizer = tokenizer_of("{% for message in messages %}USER: {{ " + filtered + " }} ASSISTANT:{% endfor %}")
    with pytest.raises(ChatTemplateError) as caught:
        user_turn(tokenizer, "Hello there, A")
    assert str(caught.value) == f"the chat template {told}"
    model = tiny_model(vocab_size=VOCABULARY)
    with pytest.raises(ValueError, match=r"the chat template .*; raw prompts go without it"):
        interpret(model, tokenizer, "Hello there, A", max_new_tokens=1)
    spec = InterpretationPromptSpec("asked", text="Hello there, A: _", chat=True)
    with pytest.raises(ValueError, match=r"'asked': the chat template .*; write the prompt without chat"):
        spec.build(tokenizer)
    assert encode_prompt(tokenizer, "Hello there, A", raw=True)


def test_interpretation_prompts_keep_their_placeholders_in_parts():
    prompt = BUILT_IN["summarize"].build(tokenizer_of(PARTS))
    assert len(prompt.insert_locations) == 5
    assert prompt.text.startswith("USER: _ _ _ _ _ ASSISTANT:")


def test_the_date_is_that_of_the_time_that_is_given():
    tokenizer = tokenizer_of(DATED)
    turns = [user_turn(tokenizer, "Hi", now=datetime(2024, 1, day)) for day in (1, 2)]
    told = ["01 January 2024: Hi", "02 January 2024: Hi"] if TELLS_THE_TIME else ["an undated day: Hi"] * 2
    assert turns == told


def test_a_stopped_clock_tells_the_time_as_strftime_does():
    formats = ("%d %b %Y", "%A, %-d. %B %y", "%H:%M:%S.%f %j %U %w %a %I %p", "the %dth", "no time")
    calls = "|".join("{{ strftime_now('" + each + "') }}" for each in formats)
    now = datetime(2026, 3, 4, 5, 6, 7, 89)
    template = "{% if strftime_now is defined %}" + calls + "{% endif %}{{ messages[0]['content'] }}"
    turn = user_turn(tokenizer_of(template), "Hi", now=now)
    assert turn == ("|".join(now.strftime(each) for each in formats) if TELLS_THE_TIME else "") + "Hi"


def test_of_templates_with_names_the_default_is_taken():
    named = {"default": "{{ messages[0]['content'] }}!", "tool_use": "{{ messages[0]['content'] }}?"}
    assert user_turn(tokenizer_of(named), "Hi") == "Hi!"
    del named["default"]
    with pytest.raises(ChatTemplateError, match=r"fails \(of those that are named tool_use none is the default\)"):
        user_turn(tokenizer_of(named), "Hi")


def ends_with_eos(**options):
    tokenizer = tiny_tokenizer(**options)
    special = [("<s>", 1), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=special)
    assert tokenizer.encode("x")[-1] == 2
    return tokenizer


def test_an_end_of_sequence_that_the_tokenizer_appends_is_left_off_and_told():
    tokenizer, plain = ends_with_eos(), tiny_tokenizer()
    with pytest.warns(UserWarning, match="the tokenizer ends every text with </s>; prompts go without it"):
        assert encode_prompt(tokenizer, "Hello", raw=True) == [1, *plain.encode("Hello")]
    with pytest.warns(UserWarning, match="ends every text"):
        assert encode_prompt(tokenizer, "Hello</s>", raw=True)[-1] == 2  # the user's own stays
    with pytest.warns(UserWarning, match="ends every text"):
        prompt = BUILT_IN["describe"].build(tokenizer)
    assert prompt.input_ids == (1, *BUILT_IN["describe"].build(plain).input_ids)


def test_it_is_told_once():
    tokenizer = ends_with_eos()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        encode_prompt(tokenizer, "Hello", raw=True)
        BUILT_IN["describe"].build(tokenizer)
        selfie.InterpretationPrompt(tokenizer, ("ab", 0))
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore:the tokenizer ends every text")
def test_the_last_token_is_the_prompts_own():
    model, tokenizer = tiny_model(vocab_size=VOCABULARY), ends_with_eos()
    (record,) = interpret(model, tokenizer, "Hi", tokens="last", layers=2, raw=True, max_new_tokens=1)
    assert record.current_token == "i"
    sequence = ("ab", 0, 0, "cd")
    (mine, plain) = (selfie.InterpretationPrompt(each, sequence) for each in (tokenizer, tiny_tokenizer()))
    assert mine.insert_locations == [place + 1 for place in plain.insert_locations]
    assert mine.located().input_ids == (1, *plain.located().input_ids)
    found = selfie.interpret("Hi", tokenizer, mine, model, [(2, -1)], max_new_tokens=1)
    assert found["token_decoded"] == ["i"]
    assert InterpretationPrompt.from_text(tokenizer, "_").insert_locations == (1,)
