"""Sampling in bulk: the same samples of a cell, whatever is interpreted with it and however the work is cut."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_folder import short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, interpret, interpret_vectors, read_csv
from transformers.interpretation import api as calls
from transformers.interpretation.runs import job as jobs
from transformers.interpretation.runs.manifest import read_manifest, settings_beside
from transformers.interpretation.runs.preparation import RequestError, check, prepare
from transformers.interpretation.runs.runner import run

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="ab: _ _ is")
OTHER = InterpretationPromptSpec("other", text="_ means")
SAMPLED = {"samples": 3, "temperature": 0.9, "top_p": 0.95, "seed": 4, "max_new_tokens": 4, "insert_layer": 1}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def by_cell(records):
    return {(r.repeat_prompt_name, r.layer_idx, r.token_idx, r.sample): r.interpretation for r in records}


def test_every_cell_has_its_samples(model, monkeypatch):
    options = {"raw": True, "interpretation_prompt": [SPEC, OTHER], "prompt_output_tokens": 0, **SAMPLED}
    found = interpret(model, TOKENIZER, "Hi!", batch_size=64, **options)
    keys = [(r.repeat_prompt_name, r.layer_idx, r.token_idx, r.sample) for r in found]
    assert keys == list(itertools.product(("short", "other"), range(5), range(3), range(3)))
    whole = by_cell(found)
    assert len(set(whole.values())) > 60
    monkeypatch.setattr(jobs, "CHUNK_CELLS", 7)
    assert by_cell(interpret(model, TOKENIZER, "Hi!", batch_size=2, **options)) == whole
    some = interpret(model, TOKENIZER, "Hi!", layers="1,-1", tokens="last", **{**options, "samples": 5})
    assert len(some) == 2 * 2 * 5
    for key, tokens in by_cell(some).items():
        assert key[-1] >= 3 or tokens == whole[key]
    other = by_cell(interpret(model, TOKENIZER, "Hi!", **{**options, "seed": 5}))
    assert sum(other[key] == whole[key] for key in whole) < 10


def test_without_sampling_nothing_has_a_sample(model):
    found = interpret(model, TOKENIZER, "Hi!", raw=True, interpretation_prompt=SPEC, max_new_tokens=2)
    assert {record.sample for record in found} == {None}
    with pytest.raises(ValueError, match="say how many samples"):
        interpret(model, TOKENIZER, "Hi!", temperature=0.5)


def test_vectors_have_samples_of_their_own(model, monkeypatch):
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    options = {"interpretation_prompt": [SPEC, OTHER], **SAMPLED}
    found = interpret_vectors(model, TOKENIZER, vectors, batch_size=64, **options)
    assert [(r.repeat_prompt_name, r.token_idx, r.sample) for r in found] == [
        (p, v, s) for p in ("short", "other") for v in range(4) for s in range(3)
    ]
    assert len({r.interpretation for r in found}) > 20
    monkeypatch.setattr(calls, "CHUNK_CELLS", 5)
    reversed_ = interpret_vectors(model, TOKENIZER, vectors.flip(0), batch_size=3, **options)
    assert {(k[0], 3 - k[2], k[3]): t for k, t in by_cell(reversed_).items()} == {
        (k[0], k[2], k[3]): t for k, t in by_cell(found).items()
    }


EXAMPLES = {"examples": [{"prompt": "Hi", "raw": True}, {"prompt": "Yes", "raw": True}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"))


def test_a_run_has_the_samples_of_interpret_however_it_is_cut(folder, tmp_path, model):
    names = ("samples", "temperature", "top_p", "seed")
    tables = []
    for chunk_cells, batch_size in ((5, 2), (64, 64)):
        output = tmp_path / f"{chunk_cells}.csv"
        options = {name: SAMPLED[name] for name in names}
        request = short_run(
            folder, tmp_path, EXAMPLES, output=output, chunk_cells=chunk_cells, **options | {"batch_size": batch_size}
        )
        prepared = prepare(request)
        assert (
            [step.cells for step in run(prepared)][-1] == prepared.plan.n_cells == 7 * 5 * 3
        )  # tokens, layers, samples
        tables.append([(r.name, r.layer_idx, r.token_idx, r.sample, r.interpretation) for r in read_csv(output)])
    assert tables[0] == tables[1]
    assert read_manifest(output).identity["sampling"] == {"samples": 3, "temperature": 0.9, "top_p": 0.95, "seed": 4}
    assert settings_beside(output) == prepared.settings
    assert "3 samples at temperature 0.9, top p 0.95" in prepared.settings.description
    with pytest.raises(RequestError, match="sampling seed: was 4, now 5"):
        prepare(short_run(folder, tmp_path, EXAMPLES, output=output, batch_size=64, **options | {"seed": 5}))
    with pytest.raises(RequestError, match="say how many samples"):
        check(short_run(folder, tmp_path, EXAMPLES, seed=5))
