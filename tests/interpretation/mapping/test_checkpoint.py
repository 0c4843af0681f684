"""A run through a file of maps: what `interpret` gives, refused where it does not fit, and told from other files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_folder import SHORT_PROMPT, short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import AffineMap, InterpretationPromptSpec, interpret, read_parquet
from transformers.interpretation.mapping.probe import PROBE, probe_of
from transformers.interpretation.mapping.translator import load_maps, save_maps
from transformers.interpretation.models.loading import ModelError
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.preparation import RequestError, prepare
from transformers.interpretation.runs.runner import run
from transformers.interpretation.runs.throughput import measure_rate

TOKENIZER = tiny_tokenizer()
EXAMPLES = {"examples": [{"prompt": "Hi", "raw": True}, {"prompt": "Hello", "raw": True, "minus": "Bye"}]}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"), model=model)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Without weights: nothing but a check that comes before them can be what fails."""
    return write_tiny_folder(tmp_path_factory.mktemp("bare"), weights=False)


def write_maps(path, layers=(1, 3), shape=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(torch.randn(shape, generator=generator), torch.randn(shape[1:], generator=generator)) for _ in layers]
    save_maps({layer: AffineMap(*tensors) for layer, tensors in zip(layers, sizes)}, path)
    return path


@pytest.fixture
def request_of(folder, tmp_path):
    def request_of(**changes):
        maps = write_maps(tmp_path / "maps.safetensors")
        return short_run(folder, tmp_path, EXAMPLES, **{"tokens": "-2:", "mapping": maps, **changes})

    return request_of


def test_the_table_is_what_interpret_gives_through_the_same_maps(request_of, model):
    request = request_of()
    list(run(prepare(request)))
    found = read_parquet(request.output)
    options = {"raw": True, "layers": [1, 3], "tokens": "-2:", "max_new_tokens": 3, "batch_size": 5}
    options |= {"interpretation_prompt": InterpretationPromptSpec(**SHORT_PROMPT)}
    both = ("Hi", None), ("Hello", "Bye")

    def expected(mapping):
        return [
            record
            for text, minus in both
            for record in interpret(model, TOKENIZER, text, minus=minus, mapping=mapping, **options)
        ]

    def said(records):
        return [(record.layer_idx, record.token_idx, record.interpretation) for record in records]

    through, plain = expected(load_maps(request.mapping)), expected(None)
    assert said(found) == said(through) != said(plain)
    assert [record.layer_idx for record in found] == 2 * [1, 1, 3, 3]
    for one, other in zip(found, through):
        assert one.interpretation_prob == pytest.approx(other.interpretation_prob, abs=1e-5)
        assert one.interpretation_weights == pytest.approx(other.interpretation_weights, abs=1e-5)


def test_layers_of_the_file_are_those_of_a_run_that_names_none(request_of):
    request = request_of()
    assert prepare(request).plan.layers == (1, 3)
    assert prepare(replace(request, layers="3")).plan.layers == (3,)
    assert prepare(replace(request, mapping=None)).plan.layers == (0, 1, 2, 3, 4)


def test_another_file_is_another_setting(request_of, tmp_path):
    request = request_of()
    list(run(prepare(request)))
    assert prepare(request).is_complete
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(request.mapping.read_bytes())
    assert prepare(replace(request, mapping=moved)).is_complete
    digest = read_manifest(request.output).identity["mapping"]
    write_maps(moved, seed=1)
    with pytest.raises(RequestError, match=rf"started with other settings.*mapping: was {digest}, now [0-9a-f]{{16}}"):
        prepare(replace(request, mapping=moved))
    with pytest.raises(RequestError, match=f"mapping: was {digest}, now none"):
        prepare(replace(request, mapping=None, layers="1,3"))
    assert not prepare(replace(request, mapping=moved, overwrite=True)).is_complete


def test_a_file_that_does_not_fit_is_named_before_weights(request_of, bare, tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors")
    write_maps(tmp_path / "none.safetensors", layers=())
    write_maps(tmp_path / "deep.safetensors", layers=(1, 7))
    write_maps(tmp_path / "wide.safetensors", shape=(48, 48))
    write_maps(tmp_path / "out.safetensors", shape=(32, 48))
    AffineMap(torch.ones(48, 32), torch.ones(32)).save(tmp_path / "single.safetensors")
    for name, changes, parts in [
        ("nowhere", {}, ["holds no maps by source layer: No such file", "fit_translator.py"]),
        ("text", {}, ["holds no maps by source layer: ", "fit_translator.py"]),
        ("single", {}, ["every layer: vectors of size 32 for a map that takes 48; it is for another model"]),
        ("none", {}, ["is empty; name a file that scripts/fit_translator.py has written"]),
        ("deep", {}, ["layer 7: the hidden states that are read are 0 to 4; it is for another model"]),
        ("wide", {}, ["layer 1: vectors of size 32 for a map that takes 48; it is for another model"]),
        ("out", {}, ["layer 1: the mapping made torch.float32 [1, 48] of [1, 32]", "another model"]),
        ("maps", {"layers": "1:4"}, ["maps.safetensors has no maps for layers [2], only for [1, 3]"]),
        ("maps", {"layers": "all"}, ["has no maps for layers [0, 2, 4], only for [1, 3]: leave the others out"]),
    ]:
        request = request_of(model=str(bare))
        with pytest.raises(RequestError) as caught:
            prepare(replace(request, mapping=tmp_path / f"{name}.safetensors", **changes))
        (problem,) = caught.value.problems
        assert problem.startswith(f"mapping {tmp_path / name}.safetensors")
        for part in parts:
            assert part in problem
        assert not request.output.exists()


def test_a_run_says_that_it_is_mapped(request_of):
    (line,) = (line for line in prepare(request_of()).notes() if "mapped" in line)
    assert "maps.safetensors, which was fitted for one insert layer" in line
    assert not any("mapped" in line for line in prepare(request_of(mapping=None)).notes())


def test_a_measured_rate_is_that_of_the_mapped_run(request_of, monkeypatch):
    mapped = []
    call = AffineMap.__call__
    monkeypatch.setattr(AffineMap, "__call__", lambda self, vectors: mapped.append(len(vectors)) or call(self, vectors))
    prepared = prepare(request_of())
    checked = len(mapped)
    assert measure_rate(prepared).per_second > 0
    assert mapped[checked:] == 4 * [1] + 4 * [2]


def test_a_single_affine_map_is_for_every_layer(request_of, tmp_path):
    single = AffineMap(2 * torch.eye(32), torch.zeros(32))
    single.save(tmp_path / "single.safetensors")
    request = replace(request_of(), mapping=tmp_path / "single.safetensors")
    prepared = prepare(request)
    assert prepared.plan.layers == (0, 1, 2, 3, 4)
    list(run(prepared))
    found = read_parquet(request.output)
    write_maps(tmp_path / "each.safetensors", layers=())
    save_maps(dict.fromkeys(range(5), single), tmp_path / "each.safetensors")
    each = replace(request, mapping=tmp_path / "each.safetensors", output=tmp_path / "each.parquet")
    list(run(prepare(each)))
    assert found == read_parquet(each.output)


def test_maps_that_were_fitted_on_another_model_of_the_same_size_are_refused(request_of, model, tmp_path):
    request = request_of()
    maps = load_maps(request.mapping)
    save_maps(maps, request.mapping, {PROBE: json.dumps(probe_of(model))})
    list(run(prepare(replace(request, output=tmp_path / "own.parquet"))))
    other = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        other.lm_head.weight.copy_(other.lm_head.weight.flip(0))
    save_maps(maps, request.mapping, {PROBE: json.dumps(probe_of(other))})
    with pytest.raises(ModelError, match=r"mapping .*maps\.safetensors is another model's: logits of a fixed vector"):
        list(run(prepare(request)))
    assert not request.output.exists()
    save_maps(maps, request.mapping, {PROBE: "[1, true, {}]"})
    with pytest.raises(RequestError, match="its probe is no list of numbers"):
        prepare(request)
