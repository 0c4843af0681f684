"""A run that is resumed on another day, with a chat template that writes the date."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import pytest
from tiny_folder import short_run, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import read_csv
from transformers.interpretation.runs import planning, preparation
from transformers.interpretation.runs.preparation import RequestError, prepare
from transformers.interpretation.runs.runner import run

try:
    from transformers.utils import chat_template_utils
except ImportError:
    chat_template_utils = None

DATED = (
    "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}: {% endif %}"
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
)
SAYING = [{"role": "user", "content": ""}]
TOLD = tiny_tokenizer().apply_chat_template(SAYING, chat_template="{{ strftime_now is defined }}", tokenize=False)
"""Whether this version tells chat templates the time; whatever the day, older ones write no date."""
EXAMPLES = {"examples": [{"prompt": "Hi"}, {"prompt": "Yes", "minus": "No"}, {"prompt": "raw", "raw": True}]}
ASKED = {"name": "asked", "text": "What is _ ?", "chat": True}


def written(date, text):
    """What the template makes of a text on that day."""
    return f"{date}: {text}" if TOLD == "True" else text


@pytest.fixture
def request_of(tmp_path):
    folder = write_tiny_folder(tmp_path / "model", model=tiny_model(vocab_size=VOCABULARY))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder)
    prompts = (str(write_json(tmp_path / "asked.json", ASKED)),)

    def request_of(name, **options):
        given = {"output": tmp_path / name, "layers": "0,2", "interpretation_prompts": prompts, "tokens": "last"}
        return short_run(folder, tmp_path, EXAMPLES, **given | {"max_new_tokens": 2, "chunk_cells": 8} | options)

    return request_of


@pytest.fixture
def on_day(monkeypatch):
    """All clocks stand at noon of that day."""

    def on_day(*date):
        class Standing(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime(*date, 12)

        for module in filter(None, (chat_template_utils, preparation, planning)):
            monkeypatch.setattr(module, "datetime", Standing, raising=False)

    return on_day


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_run_goes_on_with_the_prompts_that_it_began_with(request_of, on_day, suffix):
    on_day(2026, 5, 31)
    whole, stopped = request_of(f"whole.{suffix}", tokens="all"), request_of(f"stopped.{suffix}", tokens="all")
    if suffix == "parquet":
        whole, stopped = (request_of(r.output.name, tokens="last") for r in (whole, stopped))
    else:
        write_json(whole.examples, {"examples": [{"prompt": "Hi"}, {"prompt": "Yes"}, {"prompt": "r", "raw": True}]})
    list(run(prepare(whole)))
    steps = run(prepare(stopped))
    list(islice(steps, 3))
    steps.close()
    on_day(2026, 9, 1)  # a longer date
    if suffix == "csv":
        assert prepare(stopped).found.position.chunks == 2
    list(run(prepare(stopped)))
    assert stopped.output.read_bytes() == whole.output.read_bytes()
    assert prepare(stopped).is_complete
    if suffix == "csv":
        prompts = {record.prompt for record in read_csv(stopped.output)}
        assert prompts == {written("31 May 2026", "Hi"), written("31 May 2026", "Yes"), "r"}


def test_a_run_that_starts_anew_has_the_new_date(request_of, on_day):
    on_day(2026, 5, 31)
    request = request_of("out.csv")
    list(run(prepare(request)))
    on_day(2026, 9, 1)
    assert prepare(request).is_complete
    list(run(prepare(request_of("out.csv", overwrite=True))))
    assert read_csv(request.output)[0].prompt == written("01 September 2026", "Hi")


def test_a_template_that_wants_a_clock_where_there_is_none_is_refused(tmp_path, request_of):
    request = request_of("out.csv")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ a_clock_of_its_own() }}{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(RequestError, match=r"the chat template fails \('a_clock_of_its_own' is undefined\)"):
        prepare(request)


def test_prompts_that_change_for_another_reason_are_refused(request_of, monkeypatch):
    """Such as a template with random content: what it was when the run began cannot be reconstructed."""
    request = request_of("out.csv")
    list(run(prepare(request)))
    read_prompt = planning.read_prompt

    def otherwise(tokenizer, prompt, **options):
        text, ids = read_prompt(tokenizer, prompt, **options)
        return text, (*ids, ids[0])

    monkeypatch.setattr(planning, "read_prompt", otherwise)
    with pytest.raises(RequestError, match=r"examples as the model reads them: was \w{16}, now \w{16}"):
        prepare(request)
