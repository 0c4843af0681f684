"""A vector for each placeholder, against one pass at a time over the rewritten model."""

from __future__ import annotations

import json

import pytest
import torch
from reference import reference_greedy, reference_pass
from report_records import data_of
from tiny_folder import short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import (
    InterpretationPromptSpec,
    find_spec,
    interpret,
    interpret_vectors,
    read_csv,
    read_parquet,
    selfie,
)
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.report import page
from transformers.interpretation.runs.limits import PlanError
from transformers.interpretation.runs.preparation import prepare
from transformers.interpretation.runs.runner import run

TOKENIZER = tiny_tokenizer()
REPEATED = InterpretationPromptSpec("each", text="ab: _ is", repeated=True)
THREE = InterpretationPromptSpec("three", text="_ or _ b _")
OPTIONS = {"max_new_tokens": 4, "batch_size": 3, "insert_layer": 1, "guidance": 0}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY, eos_token_id=None)


@torch.no_grad()
def said(model, text, vectors):
    """Tokens, their probabilities and relevancy for vectors `[placeholders, hidden]` at the marks of a text."""
    ids = TOKENIZER.encode(text)
    mark = TOKENIZER.convert_tokens_to_ids("_")
    info = {
        1: ([n for n, token in enumerate(ids) if token == mark], vectors[None]),
        "overlay_strength": 1.0,
        "replacing_mode": "normalized",
    }
    tokens = reference_greedy(model, ids, info, 4)
    rows = range(len(ids) - 1, len(ids) + 3)
    under = reference_pass(model, [*ids, *tokens], info, len(ids))[1].softmax(-1)
    plain = reference_pass(model, [*ids, *tokens], {}, len(ids))[1].softmax(-1)
    p, q = ([float(side[row, token]) for row, token in zip(rows, tokens)] for side in (under, plain))
    return tuple(tokens), p, [abs(a - b) for a, b in zip(p, q)]


def assert_says(record, expected):
    assert record.interpretation == expected[0]
    assert record.interpretation_prob == pytest.approx(expected[1], abs=1e-4)
    assert record.interpretation_weights == pytest.approx(expected[2], abs=1e-4)


@torch.no_grad()
def states_of(model, text):
    ids = torch.tensor([TOKENIZER.encode(text, add_special_tokens=False)])
    return torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0]


def test_segments_of_a_prompt(model):
    options = {"raw": True, "interpretation_prompt": REPEATED, "layers": "1,4", "deep_gain": 1, **OPTIONS}
    found = interpret(model, TOKENIZER, "Hello", tokens="segment(1:4),segment(-2:),0,mean(1:3)", **options)
    states = states_of(model, "Hello")
    expected = []
    for layer in (1, 4):
        for name, vectors in (
            ("H", states[layer, :1]),
            ("mean(1:3)", states[layer, 1:3].mean(0, keepdim=True)),
            ("segment(1:4)", states[layer, 1:4]),
            ("segment(3:5)", states[layer, 3:5]),
        ):
            expected.append((layer, name, vectors))
    assert len(found) == len(expected)
    by_name = {(record.layer_idx, record.current_token): record for record in found}
    for layer, name, vectors in expected:
        record = by_name[layer, name]
        text = "ab: " + " ".join("_" * len(vectors)) + " is"
        assert record.repeat_prompt == text
        assert_says(record, said(model, text, vectors))
        assert record.prompt_token_list[record.token_idx] == name
        assert record.kind == ("segment" if "segment" in name else "mean" if "mean" in name else "prompt")


def test_a_segment_of_differences_and_no_gain(model):
    options = {"raw": True, "interpretation_prompt": THREE, "layers": 4, "deep_gain": 4.0, **OPTIONS}
    (found,) = interpret(model, TOKENIZER, "Hello", minus="So long", tokens="segment(-3:)", **options)
    assert found.current_token == "segment(2:5) − segment(4:7)"
    difference = states_of(model, "Hello")[4, 2:5] - states_of(model, "So long")[4, 4:7]
    assert_says(found, said(model, "_ or _ b _", difference))
    with pytest.raises(ValueError, match=r'"segment\(1:\)" has 4 tokens of the one prompt and 6 of the other'):
        interpret(model, TOKENIZER, "Hello", minus="So long", tokens="segment(1:)", **options)


def test_a_segment_is_mapped(model):
    turn = torch.randn(32, 32, generator=torch.Generator().manual_seed(5)) / 6
    options = {"raw": True, "interpretation_prompt": REPEATED, "layers": 2, "mapping": lambda v: v @ turn, **OPTIONS}
    (found,) = interpret(model, TOKENIZER, "Hello", tokens="segment(1:3)", **options)
    assert_says(found, said(model, "ab: _ _ is", states_of(model, "Hello")[2, 1:3] @ turn))


def test_vectors_for_each_placeholder(model):
    vectors = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(2))
    found = interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=[REPEATED, THREE], **OPTIONS)
    assert len(found) == 10
    for number, record in enumerate(found):
        text = "ab: _ _ _ is" if number < 5 else "_ or _ b _"
        assert record.repeat_prompt == text
        assert_says(record, said(model, text, vectors[number % 5]))
    doubled = interpret_vectors(model, TOKENIZER, vectors[:1], strength=2.0, interpretation_prompt=THREE, **OPTIONS)
    assert_says(doubled[0], said(model, "_ or _ b _", 2 * vectors[0]))
    turned = interpret_vectors(
        model, TOKENIZER, vectors[:1], mapping=lambda v: v.flip(-1), interpretation_prompt=THREE, **OPTIONS
    )
    assert_says(turned[0], said(model, "_ or _ b _", vectors[0].flip(-1)))


def test_what_does_not_fit_is_refused(model):
    options = {"raw": True, **OPTIONS}
    vectors = torch.zeros(2, 2, 32)
    for call, message in (
        (
            lambda: interpret(model, TOKENIZER, "Hello", tokens="segment(1:3)", interpretation_prompt=THREE, **options),
            '"three" has 3 placeholders for 2 vectors; give as many',
        ),
        (lambda: interpret(model, TOKENIZER, "Hello", layers="segment(1:3)", **options), "is for tokens alone"),
        (lambda: interpret(model, TOKENIZER, "Hello", tokens="segment(3:1)", **options), "has none of 5"),
        (lambda: interpret(model, TOKENIZER, "Hello", tokens="segment(2)", **options), "is a single token"),
        (lambda: interpret(model, TOKENIZER, "Hello", tokens="segment(::-1)", **options), "runs backwards"),
        (lambda: interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=THREE), "3 placeholders for 2"),
        (lambda: interpret_vectors(model, TOKENIZER, vectors, strength="auto"), "one vector at all placeholders"),
        (lambda: interpret_vectors(model, TOKENIZER, vectors[..., :9]), "n × placeholders × 32"),
        (lambda: InterpretationPromptSpec("x", text="_ _", repeated=True), "only a single one can be repeated"),
        (
            lambda: interpret_chunk(
                model, [Cell(vectors[0], THREE.build(TOKENIZER))], InterpretationSettings(), batch_size=1
            ),
            r"vectors of shape \[2, 32\].*\"three\" 3 placeholders",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_zero_among_the_vectors_has_no_direction(model):
    vectors = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(2))
    vectors[0, 1] = 0
    options = {"interpretation_prompt": THREE, **OPTIONS, "replacing_mode": "norm_matched"}
    (found,) = interpret_vectors(model, TOKENIZER, vectors, **options)
    assert "no direction to scale" in found.status


def test_a_run_with_segments_of_several_lengths(tmp_path, model):
    folder = write_tiny_folder(tmp_path / "model", model=model)
    file = tmp_path / "each.json"
    file.write_text(json.dumps({"text": "ab: _ is", "repeated": True}))
    assert find_spec(file) == InterpretationPromptSpec("each", text="ab: _ is", repeated=True)
    examples = {"examples": [{"prompt": "Hi!", "raw": True}, {"prompt": "Hello", "raw": True}]}
    options = {"tokens": "segment(1:),last", "layers": "1,2", "interpretation_prompts": (str(file),), "chunk_cells": 3}
    options |= {"guidance": 0.0, "insert_layer": 1, "deep_gain": 1.0}
    tables = []
    for name, read in (("out.csv", read_csv), ("out.parquet", read_parquet)):
        request = short_run(folder, tmp_path, examples, output=tmp_path / name, **options)
        list(run(prepare(request)))
        tables.append(list(read(request.output)))
    assert [record.interpretation for record in tables[0]] == [record.interpretation for record in tables[1]]
    segments = [record for record in tables[0] if record.kind == "segment"]
    assert [record.current_token for record in segments] == ["segment(1:3)"] * 2 + ["segment(1:5)"] * 2
    for record, prompt in zip(segments, ["Hi!", "Hi!", "Hello", "Hello"]):
        vectors = states_of(model, prompt)[record.layer_idx, 1:]
        assert record.interpretation == said(model, record.repeat_prompt, vectors)[0][:3]
    example = data_of(page(tables[0]))["examples"][0]
    assert [column[1:] for column in example["columns"]] == [["!", "prompt"], ["segment(1:3)", "segment"]]
    with pytest.raises(PlanError, match="11 vectors"):
        interpret(model, TOKENIZER, "Hello world", raw=True, tokens="segment(all)", interpretation_prompt=THREE)


def test_selfie_takes_a_vector_for_each_location(model):
    prompt = selfie.InterpretationPrompt(TOKENIZER, ("ab:", 0, 0, " is"))
    places = len(prompt.insert_locations)
    vectors = torch.randn(places, 32, generator=torch.Generator().manual_seed(3))
    (text,) = selfie.interpret_vectors([vectors], model, prompt, TOKENIZER, max_new_tokens=4)
    ids = prompt.interpretation_prompt_model_inputs["input_ids"][0].tolist()
    info = {1: (prompt.insert_locations, vectors[None]), "overlay_strength": 1.0, "replacing_mode": "normalized"}
    assert text == TOKENIZER.decode(reference_greedy(model, ids, info, 4), skip_special_tokens=True)
