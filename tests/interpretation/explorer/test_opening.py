"""`results.explore`: a live page that opens at the results' example, in a notebook and elsewhere."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from urllib.error import URLError
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

import pytest
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import interpret, interpret_vectors
from transformers.interpretation.explorer.opening import opening
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec

MODEL, TOKENIZER = tiny_model(vocab_size=VOCABULARY), tiny_tokenizer()


def results(prompt="ab cd", **options):
    short = InterpretationPromptSpec("short", text="_ is")
    given = {"interpretation_prompt": short, "max_new_tokens": 1, "prompt_output_tokens": 0, "raw": True}
    return interpret(MODEL, TOKENIZER, prompt, **{**given, **options})


def test_the_address_names_what_the_results_hold():
    found = opening(results(layers=[1, 3], tokens=[0, 2], insert_layer=[0, 2]))
    assert found == {"prompt": "ab cd", "layers": "1,3", "tokens": "0,2", "insert_layer": "0,2"}


def test_a_built_in_interpretation_prompt_is_named():
    found = [replace(record, repeat_prompt_name="describe") for record in results(layers=[1], tokens=[0])]
    assert opening(found)["interpretation_prompt"] == "describe"


def test_of_a_difference_both_prompts_are_named():
    found = opening(results("ab", minus="xy", layers=[1], tokens="last"))
    assert (found["prompt"], found["other"], found["view"]) == ("ab", "xy", "difference")


def test_two_prompts_that_cannot_be_told_apart_are_left_out():
    assert opening(results("ab\n−\ncd", minus="xy", layers=[1], tokens="last")) == {}


def test_generated_tokens_come_with_all():
    assert "tokens" not in opening(results(layers=[1], prompt_output_tokens=1))


def test_vectors_have_no_prompt_to_open_with():
    assert (
        opening(interpret_vectors(MODEL, TOKENIZER, MODEL.get_input_embeddings().weight[5:6], max_new_tokens=1)) == {}
    )


def test_a_notebook_shows_a_frame_and_closing_ends_the_server():
    found = results(layers=[1, 3], tokens=[0])
    with found.explore(MODEL, TOKENIZER) as explorer:
        assert explorer.url in repr(explorer)
        address = urlsplit(explorer.url)
        assert address.hostname == "127.0.0.1"
        assert dict(parse_qsl(address.fragment)) == opening(found)
        (frame,) = re.findall(r'<iframe src="([^"]*)"', explorer._repr_html_())
        assert html.unescape(frame) == explorer.url
        with urlopen(explorer.url) as answer:
            assert answer.status == 200 and answer.headers.get_content_type() == "text/html"
    with pytest.raises(URLError):
        urlopen(explorer.url)
