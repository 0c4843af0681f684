"""Layers by the names of other libraries."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from transformers.interpretation.models.layer_names import named_layer
from transformers.interpretation.models.layer_spec import insert_layer_of
from transformers.interpretation.prompts.index_selection import Selection


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("resid_pre.0", 0),
        ("resid_post.10", 11),
        ("blocks.10.hook_resid_pre", 10),
        ("blocks.10.hook_resid_post", 11),
        ("model.layers.10.input", 10),
        ("model.layers.10.output", 11),
        ("transformer.h.3.output", 4),
        ("layers.3.input", 3),
    ],
)
def test_a_name_is_the_hidden_state_at_that_place(name, index):
    assert named_layer(name).index == index
    assert insert_layer_of(name) == index
    assert Selection.of(name).resolve(30) == (index,)
    assert Selection.of([name, 20]).resolve(30) == (index, 20)


@pytest.mark.parametrize("text", ["5", "all", "resid_post", "resid_post.x", "model.layers.10", "x.output", ""])
def test_other_texts_are_no_names(text):
    assert named_layer(text) is None


@torch.no_grad()
def test_the_output_of_a_layer_is_the_next_ones_input():
    model, ids = tiny_model(), torch.arange(5, 11)[None]
    outputs = []
    handle = model.model.layers[1].register_forward_hook(lambda _m, _a, output: outputs.append(output))
    states = model(ids, output_hidden_states=True).hidden_states
    handle.remove()
    output = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    assert torch.equal(states[named_layer("model.layers.1.output").index], output)


def test_the_last_layers_output_is_no_hidden_state():
    with pytest.raises(ValueError, match=r"resid_post.3 is what the last decoder layer puts out.*write 4 if that is"):
        Selection.of("resid_post.3").resolve(5)
    assert Selection.of("resid_post.2").resolve(4, ends_after_norm=False) == (3,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.3.hook_mlp_out", 'is a place within a layer.*give place="mlp_output" and the layer 3'),
        ("attn_out.5", 'give place="attention_output" and the layer 5'),
        ("blocks.3.hook_resid_mid", "not supported"),
    ],
)
def test_places_within_a_layer_are_asked_for_otherwise(name, message):
    with pytest.raises(ValueError, match=message):
        named_layer(name)


def test_tokens_have_no_such_names():
    with pytest.raises(ValueError, match=r'"resid_post.3" is the name of a layer; tokens are given by indices'):
        Selection.of("resid_post.3").positions(10)


@torch.no_grad()
def test_in_insert_info():
    model, ids, vector = tiny_model(), torch.arange(5, 11)[None], torch.linspace(-1, 1, 32)
    how = {"replacing_mode": "normalized", "overlay_strength": 1.0}
    expected = model.forward_interpret(ids, insert_info=[{2: ([3], vector), **how}]).logits
    for name in ("resid_pre.2", "resid_post.1", "blocks.2.hook_resid_pre"):
        assert torch.equal(model.forward_interpret(ids, insert_info=[{name: ([3], vector), **how}]).logits, expected)
    with pytest.raises(ValueError, match="layer 4 is out of range"):
        model.forward_interpret(ids, insert_info=[{"resid_pre.4": ([3], vector), **how}])
    with pytest.raises(ValueError, match="layer 2 is given twice"):
        model.forward_interpret(ids, insert_info=[{2: ([3], vector), "resid_post.1": ([4], vector), **how}])
