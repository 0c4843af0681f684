"""`interpret` and `interpret_vectors` against one pass at a time over the rewritten model."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from api_cells import OPTIONS, OTHER, SPEC, TOKENIZER, VECTOR_OPTIONS, assert_says, said
from reference import reference_greedy
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY
from transformers.interpretation import InterpretationPrompt, interpret, interpret_vectors


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@torch.no_grad()
def test_every_layer_and_token_of_prompt_and_output(model):
    found = interpret(
        model, TOKENIZER, "Hi!", raw=True, interpretation_prompt=[SPEC, OTHER], prompt_output_tokens=2, **OPTIONS
    )
    ids = TOKENIZER.encode("Hi!", add_special_tokens=False)
    output = reference_greedy(model, ids, {}, 2)
    assert 2 not in output
    sequence = [*ids, *output]
    states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    raw_tokens = tuple(TOKENIZER.convert_ids_to_tokens(sequence))
    places = [(prompt, layer, token) for prompt in (SPEC, OTHER) for layer in range(5) for token in range(5)]
    assert len(found) == len(places)
    for number, (record, (spec, layer, token)) in enumerate(zip(found, places)):
        prompt = spec.build(TOKENIZER)
        if number % 4 == 0:  # the slow way is slow; all layers and tokens have their turn
            assert_says(record, said(model, prompt, states[layer][0, token], 4))
        assert (record.layer_idx, record.token_idx) == (layer, token)
        assert (record.repeat_prompt, record.repeat_prompt_name) == (prompt.text, spec.name)
        assert (record.name, record.category, record.prompt) == ("example_1", "example", "Hi!")
        assert record.prompt_token_list == raw_tokens
        assert record.current_token == raw_tokens[token]
        assert record.token_source == ("prompt" if token < 3 else "output")
        assert record.prompt_output == TOKENIZER.decode(output, skip_special_tokens=True)
        assert (record.insert_layer, record.answer) == (1, None)


def reading_of(model, prompt, place):
    """What the layers have in one place, `[layers, sequence, hidden]`, kept by hooks on Llama's modules."""
    ids = torch.tensor([TOKENIZER.encode(prompt, add_special_tokens=False)])
    if place == "residual":
        return torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0]
    seen = []
    keep = {
        "attention_output": lambda module, args, output: seen.append(output[0]),
        "mlp_input": lambda module, args, output: seen.append(args[0]),
        "mlp_output": lambda module, args, output: seen.append(output),
    }[place]
    modules = [layer.self_attn if place == "attention_output" else layer.mlp for layer in model.model.layers]
    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([state.reshape(ids.shape[1], -1) for state in seen])


@pytest.mark.parametrize("minus", [None, "So long"])
@pytest.mark.parametrize("place", ["residual", "attention_output", "mlp_input", "mlp_output"])
@torch.no_grad()
def test_places_means_and_differences(model, place, minus):
    options = {"raw": True, "interpretation_prompt": SPEC, "prompt_output_tokens": 2, **OPTIONS}
    found = interpret(
        model, TOKENIZER, "Hello", place=place, minus=minus, layers="1,-1", tokens="mean(1:4),last,mean(all)", **options
    )
    states = reading_of(model, "Hello", place)
    vectors = [states[:, 4], states[:, 1:4].mean(dim=1), states.mean(dim=1)]
    names = ["o", "mean(1:4)", "mean(0:5)"]
    if minus is not None:
        other = reading_of(model, minus, place)
        vectors = [
            ours - its for ours, its in zip(vectors, [other[:, 6], other[:, 1:4].mean(dim=1), other.mean(dim=1)])
        ]
        names = ["o − g[6]", "mean(1:4) − mean(1:4)", "mean(0:5) − mean(0:7)"]
    kinds = ["prompt", "mean", "mean"] if minus is None else ["difference"] * 3
    last = len(states) - 1
    assert last == (4 if place == "residual" else 3)
    cells = [(layer, number) for layer in (1, last) for number in range(3)]
    assert len(found) == len(cells)
    for record, (layer, number) in zip(found, cells):
        assert_says(record, said(model, SPEC.build(TOKENIZER), vectors[number][layer], 4))
        assert (record.layer_idx, record.token_idx) == (layer, [4, 7, 8][number])
        assert record.current_token == names[number]
        assert record.prompt_token_list[record.token_idx] == names[number].partition(" − ")[0]
        assert record.prompt_token_list[5:7] == tuple(TOKENIZER.convert_ids_to_tokens(greedy(model, "Hello", 2)))
        assert (record.kind, record.place) == (kinds[number], place)
        assert record.token_source == kinds[number] + ("" if place == "residual" else f", {place}")
        assert record.prompt == ("Hello" if minus is None else "Hello\n−\nSo long")


@torch.no_grad()
def test_both_embeddings_of_a_difference_are_mapped(model):
    """An affine map's offset cancels."""
    turn = torch.randn(32, 32, generator=torch.Generator().manual_seed(5)) / 6
    options = {"raw": True, "interpretation_prompt": SPEC, "layers": 2, "tokens": "last", **OPTIONS}
    (found,) = interpret(model, TOKENIZER, "Hello", minus="So long", mapping=lambda v: v @ turn + 7, **options)
    ours, its = (reading_of(model, prompt, "residual")[2, -1] for prompt in ("Hello", "So long"))
    assert_says(found, said(model, SPEC.build(TOKENIZER), (ours - its) @ turn, 4))


def greedy(model, prompt, n):
    return reference_greedy(model, TOKENIZER.encode(prompt, add_special_tokens=False), {}, n)


def test_choices_select_what_all_would_give(model):
    options = {"raw": True, "interpretation_prompt": SPEC, **OPTIONS}
    everything = {(r.layer_idx, r.token_idx): r for r in interpret(model, TOKENIZER, "Hello", **options)}
    some = interpret(model, TOKENIZER, "Hello", layers=[-1, 0], tokens="-2,0", **options)
    assert [(r.layer_idx, r.token_idx) for r in some] == [(0, 0), (0, 3), (4, 0), (4, 3)]
    assert [r.interpretation for r in some] == [everything[r.layer_idx, r.token_idx].interpretation for r in some]
    assert {
        r.token_idx for r in interpret(model, TOKENIZER, "Hi", tokens="all", prompt_output_tokens=3, **options)
    } == set(range(5))
    none = interpret(model, TOKENIZER, "Hi", prompt_output_tokens=0, **options)
    assert {r.token_idx for r in none} == {0, 1}
    assert {r.prompt_output for r in none} == {""}


@torch.no_grad()
def test_each_embedding_at_the_layer_that_it_comes_from(model):
    ids = TOKENIZER.encode("Hi", add_special_tokens=False)
    states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    options = {**OPTIONS, "raw": True, "interpretation_prompt": SPEC, "insert_layer": "same", "tokens": "last"}
    found = interpret(model, TOKENIZER, "Hi", layers=":4", **options)
    assert [(record.layer_idx, record.insert_layer) for record in found] == [(layer, "same") for layer in range(4)]
    for record, layer in zip(found, range(4)):
        assert_says(record, said(model, SPEC.build(TOKENIZER), states[layer][0, -1], 4, insert_layer=layer))
    with pytest.raises(ValueError, match="hidden state 4 comes after the last decoder layer"):
        interpret(model, TOKENIZER, "Hi", **options)


def test_an_output_that_ends_early_has_no_later_tokens(model):
    """Make the model's own continuation the end-of-sequence token."""
    ids = TOKENIZER.encode("Hi", add_special_tokens=False)
    first = reference_greedy(model, ids, {}, 1)[0]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [2, first]
    try:
        found = interpret(
            model, TOKENIZER, "Hi", raw=True, layers=0, interpretation_prompt=SPEC, prompt_output_tokens=9, **OPTIONS
        )
    finally:
        model.generation_config.eos_token_id = before
    assert [record.token_idx for record in found] == [0, 1, 2]
    assert len(found[0].prompt_token_list) == 3


@pytest.mark.parametrize("settings", [("normalized", 0.5, 0), ("addition", 2.0, 3), ("norm_matched", 0.9, (0, 2))])
def test_vectors_of_ones_own(model, settings):
    mode, strength, layer = settings
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    options = {**VECTOR_OPTIONS, "insert_layer": layer, "replacing_mode": mode, "overlay_strength": strength}
    found = interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=[SPEC, OTHER], names="abc", **options)
    for record, (spec, index) in zip(found, [(spec, index) for spec in (SPEC, OTHER) for index in range(3)]):
        prompt = spec.build(TOKENIZER)
        expected = said(model, prompt, vectors[index], 4, insert_layer=layer, mode=mode, strength=strength)
        assert_says(record, expected)
        assert (record.token_idx, record.current_token, record.layer_idx) == (index, "abc"[index], None)
        assert (record.token_source, record.prompt_token_list) == ("vector", ("a", "b", "c"))
    assert len(found) == 6
    listed = interpret_vectors(model, TOKENIZER, list(vectors), interpretation_prompt=[SPEC, OTHER], **options)
    assert [record.interpretation for record in listed] == [record.interpretation for record in found]
    assert listed[1].current_token == "vector 1"


def test_a_vector_that_is_not_finite_fails_alone(model):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    vectors[1, 7] = float("nan")
    bad = interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=SPEC, **VECTOR_OPTIONS)
    assert "NaN" in bad[1].status
    assert (bad[1].interpretation, bad[1].interpretation_text, bad[1].interpretation_prob) == ((), "", ())
    good = interpret_vectors(model, TOKENIZER, vectors[[0, 2]], interpretation_prompt=SPEC, **VECTOR_OPTIONS)
    assert [bad[0].interpretation, bad[2].interpretation] == [record.interpretation for record in good]


def test_interpretation_prompts_come_in_every_form(model):
    built = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="mine")
    found = interpret_vectors(
        model, TOKENIZER, torch.ones(1, 32), interpretation_prompt=[built, SPEC, "repeat"], **VECTOR_OPTIONS
    )
    assert [record.repeat_prompt_name for record in found] == ["mine", "short", "repeat"]
    assert found[0].interpretation == found[1].interpretation


def test_importing_the_package_is_cheap_and_names_are_found():
    code = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in ("pandas", "jinja2", "rich", "matplotlib")
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
import transformers
import transformers.interpretation as package
from transformers.interpretation import interpret
from transformers.interpretation import capture
assert callable(capture), capture
for name in dir(package):
    assert getattr(package, name) is not None
try:
    package.nonsense
except AttributeError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "module 'transformers.interpretation' has no attribute 'nonsense'\n"
