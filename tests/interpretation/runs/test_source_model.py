"""A run that explains another model's embeddings: equal to `interpret`, refused, or started over."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from tiny_folder import SHORT_PROMPT, short_run, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import AffineMap, InterpretationPromptSpec, interpret, read_parquet
from transformers.interpretation.mapping.translator import load_maps, save_maps
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.preparation import RequestError, prepare
from transformers.interpretation.runs.runner import run
from transformers.interpretation.runs.throughput import measure_rate

TOKENIZER, OTHERS = tiny_tokenizer(), tiny_tokenizer(chat=True, backwards=True)
EXAMPLES = {"examples": [{"prompt": "Hi", "raw": True}, {"prompt": "Hello"}]}
NARROW = {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3, "num_hidden_layers": 3}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def other():
    """Another width, depth and weights; in its folder with a tokenizer of other ids and with a chat template."""
    return tiny_model(vocab_size=VOCABULARY, **NARROW)


@pytest.fixture(scope="module")
def folders(model, other, tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    write_tiny_folder(base / "model", model=model)
    write_tiny_folder(base / "other", model=other)
    OTHERS.save_pretrained(base / "other")
    return base


@pytest.fixture
def request_of(folders, tmp_path):
    maps = {layer: AffineMap(torch.randn(24, 32), torch.randn(32)) for layer in (1, 3)}
    save_maps(maps, tmp_path / "maps.safetensors")

    def request_of(**changes):
        options = {"source_model": str(folders / "other"), "mapping": tmp_path / "maps.safetensors", "tokens": "-2:"}
        return short_run(folders / "model", tmp_path, EXAMPLES, **{**options, **changes})

    return request_of


def test_the_table_is_what_interpret_gives(request_of, model, other):
    request = request_of()
    list(run(prepare(request)))
    found = read_parquet(request.output)
    expected = [
        record
        for text, raw in (("Hi", True), ("Hello", False))
        for record in interpret(
            model,
            TOKENIZER,
            text,
            raw=raw,
            layers=[1, 3],
            tokens="-2:",
            interpretation_prompt=InterpretationPromptSpec(**SHORT_PROMPT),
            max_new_tokens=3,
            batch_size=5,
            source_model=other,
            source_tokenizer=OTHERS,
            mapping=load_maps(request.mapping),
        )
    ]
    names = ("prompt", "prompt_output", "prompt_token_list", "layer_idx", "token_idx", "interpretation", "status")
    assert [[getattr(r, name) for name in names] for r in found] == [[getattr(r, n) for n in names] for r in expected]
    assert found[-1].prompt == "<s>user:Hello</s><s>assistant:"
    for one, its in zip(found, expected):
        assert one.interpretation_prob == pytest.approx(its.interpretation_prob, abs=1e-5)
        assert one.interpretation_weights == pytest.approx(its.interpretation_weights, abs=1e-5)


def test_another_source_model_is_another_setting(request_of, folders, tmp_path):
    request = request_of()
    list(run(prepare(request)))
    assert prepare(request).is_complete
    settings = read_manifest(request.output).identity
    assert settings["source model"] != settings["model"]
    moved = shutil.copytree(folders / "other", tmp_path / "moved")
    assert prepare(replace(request, source_model=str(moved))).is_complete
    write_json(moved / "special_tokens_map.json", {})
    with pytest.raises(RequestError, match=r"started with other settings.*source model: was \S+, now \S+"):
        prepare(replace(request, source_model=str(moved)))
    own = {layer: AffineMap(torch.eye(32), torch.zeros(32)) for layer in (1, 3)}
    save_maps(own, tmp_path / "own.safetensors")
    with pytest.raises(RequestError, match=r"source model: was \S+, now none"):
        prepare(replace(request, source_model=None, mapping=tmp_path / "own.safetensors"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mapping": None}, "the source model's hidden size is 24 and the model's 32: give maps from one to the other"),
        ({"source_model": None}, "layer 1: vectors of size 32 for a map that takes 24; it is for another model"),
        ({"layers": "2"}, "has no maps for layers [2], only for [1, 3]"),
        ({"layers": "4"}, "layers: 4 is out of range: there are 4"),
        ({"insert_layer": 4}, "insert layer 4 is out of range: 0 to 3"),
        ({"source_model": "./nowhere"}, "model ./nowhere: there is no such folder"),
        ({"place": "mlp_output", "layers": "3"}, "layers: 3 is out of range: there are 3"),
        ({"prompt_output_tokens": 95}, "example_1: has 2 tokens and 95 new ones; the model takes 96"),
        ({"device": "auto", "device_map": "deep.json"}, "the model has no module model.layers.3"),
    ],
)
def test_what_does_not_fit_is_refused_before_weights(request_of, tmp_path, monkeypatch, changes, problem):
    write_tiny_folder(tmp_path / "model", weights=False)
    short = tiny_model(vocab_size=VOCABULARY, **NARROW, max_position_embeddings=96)
    write_tiny_folder(tmp_path / "other", model=short, weights=False)
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "deep.json", {"": "cpu", "model.layers.3": "disk"})
    bare = {"model": "model", "source_model": "other"}
    with pytest.raises(RequestError) as caught:
        prepare(request_of(**{**bare, **changes}))
    assert problem in str(caught.value)
    assert not (tmp_path / "out.parquet").exists()


def test_equal_sizes_need_no_mapping(request_of, folders):
    request = request_of(source_model=str(folders / "model"), mapping=None, layers="0,2")
    list(run(prepare(request)))
    plain = replace(request, source_model=None, output=request.output.with_name("plain.parquet"))
    list(run(prepare(plain)))
    found, expected = read_parquet(request.output), read_parquet(plain.output)
    assert [record.interpretation for record in found] == [record.interpretation for record in expected]


def test_both_models_follow_a_device_map(request_of, tmp_path):
    everything = str(write_json(tmp_path / "map.json", {"": "cpu"}))
    request = request_of(device="auto", device_map=everything)
    list(run(prepare(request)))
    plain = request_of(output=tmp_path / "plain.parquet")
    list(run(prepare(plain)))
    found, expected = read_parquet(request.output), read_parquet(plain.output)
    assert [record.interpretation for record in found] == [record.interpretation for record in expected]


def test_a_rate_is_measured_with_both(request_of):
    assert measure_rate(prepare(request_of())).per_second > 0
