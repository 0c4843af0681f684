"""Vectors inserted elsewhere than at the input of a layer: `interpret` and the program, against hooks set by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from api_cells import OPTIONS, SPEC, TOKENIZER, VECTOR_OPTIONS, assert_says
from places_by_hand import by_hand
from tiny_folder import short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY
from transformers.interpretation import (
    InterpretationPrompt,
    InterpretationPromptSpec,
    interpret,
    interpret_vectors,
    read_csv,
    read_parquet,
)
from transformers.interpretation.report.grid import examples_of
from transformers.interpretation.runs.preparation import RequestError, prepare
from transformers.interpretation.runs.runner import run

ENDING = InterpretationPromptSpec("ending", text="_ means _")
PLACES = ["attention_output", "mlp_input", "mlp_output", "layer_output", "final_norm"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@torch.no_grad()
def said_at(model, prompt, vector, site, n=4):
    """Tokens, probabilities and relevancy of one vector at a site."""
    ids, places = list(prompt.input_ids), list(prompt.insert_locations)
    info = {site: (places, [vector] * len(places)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    tokens, under, plain = [], [], []
    while len(tokens) < n and 2 not in tokens:
        text = torch.tensor([[*ids, *tokens]])
        with by_hand(model, [info], len(ids)):
            likely = model(text, use_cache=False).logits[0, -1].softmax(-1)
        tokens.append(int(likely.argmax()))
        under.append(float(likely[tokens[-1]]))
        plain.append(float(model(text, use_cache=False).logits[0, -1].softmax(-1)[tokens[-1]]))
    return tuple(tokens), under, [abs(one - other) for one, other in zip(under, plain)]


@pytest.mark.parametrize("spec", [SPEC, ENDING])
@pytest.mark.parametrize("place", PLACES)
@torch.no_grad()
def test_interpret_at_every_place(model, place, spec):
    options = OPTIONS | {"insert_layer": 3, "insert_place": place, "interpretation_prompt": spec, "raw": True}
    found = interpret(model, TOKENIZER, "Hello", layers="1,3,-1", tokens="0,last", **options)
    ids = torch.tensor([TOKENIZER.encode("Hello", add_special_tokens=False)])
    states = model(ids, output_hidden_states=True).hidden_states
    cells = [(layer, token) for layer in (1, 3, 4) for token in (0, 4)]
    prompt = spec.build(TOKENIZER)
    assert [(record.layer_idx, record.token_idx) for record in found] == cells
    for record, (layer, token) in zip(found, cells):
        assert_says(record, said_at(model, prompt, states[layer][0, token], (place, 3)))
        assert (record.insert_layer, record.insert_place) == (3, place)
    if place == "final_norm" and spec is SPEC:  # behind the last layer nothing passes on to the token that speaks
        assert max(record.interpretation_weights[0] for record in found) < 1e-6


@torch.no_grad()
def test_vectors_too_and_their_strengths(model):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    options = VECTOR_OPTIONS | {"insert_layer": 2, "insert_place": "mlp_output", "interpretation_prompt": SPEC}
    prompt = SPEC.build(TOKENIZER)
    for record, vector in zip(interpret_vectors(model, TOKENIZER, vectors, **options), vectors, strict=True):
        assert_says(record, said_at(model, prompt, vector, ("mlp_output", 2)))
    chosen = interpret_vectors(model, TOKENIZER, vectors, strength="auto", **options)
    for record, vector in zip(chosen, vectors, strict=True):
        factor = float(record.current_token.split("×")[1])
        assert_says(record, said_at(model, prompt, factor * vector, ("mlp_output", 2)))
    last = options | {"insert_layer": 3, "insert_place": "final_norm"}
    assert len(interpret_vectors(model, TOKENIZER, vectors, strength="auto", **last)) == 2


@torch.no_grad()
def test_at_the_layer_it_comes_from(model):
    options = OPTIONS | {"insert_layer": "same", "insert_place": "mlp_output", "interpretation_prompt": SPEC}
    found = interpret(model, TOKENIZER, "Hello", raw=True, layers="1,2", tokens="last", place="mlp_output", **options)
    prompt = SPEC.build(TOKENIZER)
    for record, layer in zip(found, (1, 2), strict=True):
        seen = []
        handle = model.model.layers[layer].mlp.register_forward_hook(lambda *args, seen=seen: seen.append(args[-1]))
        model(torch.tensor([TOKENIZER.encode("Hello", add_special_tokens=False)]))
        handle.remove()
        assert_says(record, said_at(model, prompt, seen[0][0, -1], ("mlp_output", layer)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_program_has_it_in_its_table_page_and_manifest(model, tmp_path, suffix):
    folder = write_tiny_folder(tmp_path / "model", model=model)
    options = {"insert_place": "mlp_output", "layers": "1,2", "tokens": "last", "guidance": 0.0, "deep_gain": 1.0}
    output = tmp_path / f"out.{suffix}"
    request = short_run(folder, tmp_path, {"examples": [{"prompt": "Hi", "raw": True}]}, output=output, **options)
    list(run(prepare(request)))
    found = (read_csv if suffix == "csv" else read_parquet)(output)
    prompt = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="short")
    how = OPTIONS | {"insert_layer": 2, "max_new_tokens": 3, "interpretation_prompt": prompt, "raw": True}
    expected = interpret(model, TOKENIZER, "Hi", layers="1,2", tokens="last", insert_place="mlp_output", **how)
    assert [r.interpretation for r in found] == [r.interpretation for r in expected]
    assert {record.insert_place for record in found} == {"mlp_output"}
    assert examples_of(list(found))[0].readings[0].inserted_at == "layer 2 (mlp output)"
    assert prepare(request).is_complete
    with pytest.raises(RequestError, match="insert_place: was mlp_output, now residual"):
        prepare(replace(request, insert_place="residual"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"insert_place": "mlp"}, "insert_place is 'mlp': use one of residual, attention_output"),
        ({"insert_place": "final_norm"}, "insert place final_norm is behind the last layer: .* must be 3"),
        ({"insert_place": "mlp_output", "insert_layer": 4}, "insert layer 4 is out of range"),
    ],
)
def test_what_there_is_not(model, change, message):
    options = OPTIONS | {"interpretation_prompt": SPEC, "raw": True} | change
    with pytest.raises(ValueError, match=message):
        interpret(model, TOKENIZER, "Hello", layers=1, tokens="last", **options)


def test_a_place_that_the_model_does_not_have_is_refused_before_any_work(model):
    unlike = tiny_model(vocab_size=VOCABULARY)
    unlike.interpretation_places = {"mlp_output": "nowhere"}
    unlike.forward = None
    with pytest.raises(ValueError, match="mlp_output of layer 1 is no nowhere"):
        interpret(unlike, TOKENIZER, "Hello", insert_place="mlp_output", insert_layer=1, raw=True)
