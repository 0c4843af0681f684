"""Contexts against all activations held at once and sorted; corpora of every form."""

from __future__ import annotations

import json
import sys
import types

import pyarrow
import pyarrow.parquet
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.features import contexts as module
from transformers.interpretation.features.contexts import CorpusError, read_texts, top_contexts

TOKENIZER = tiny_tokenizer()
LAYER, K, FEATURES = 2, 3, 7


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def corpus(n=40):
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, 60, (n,), generator=generator).tolist()
    return ["".join(chr(97 + int(i)) for i in torch.randint(26, (size,), generator=generator)) for size in lengths]


def directions():
    return torch.randn(FEATURES, 32, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def everything(model, texts):
    """Per text its token ids, and activations [tokens behind the first, features]."""
    for text in texts:
        ids = TOKENIZER.encode(text, add_special_tokens=False)[:128]
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER][0, 1:]
        yield ids, states @ directions().T


def test_the_best_of_all_texts(model):
    texts = corpus()
    found = top_contexts(model, TOKENIZER, texts, lambda states: states @ directions().T, layer=LAYER, k=K)
    whole = list(everything(model, texts))
    for feature in range(FEATURES):
        peaks = [(float(values[:, feature].max()), int(values[:, feature].argmax()) + 1, ids) for ids, values in whole]
        expected = [peak for peak in sorted(peaks, key=lambda peak: -peak[0]) if peak[0] > 0][:K]
        assert len(found.best[feature]) == len(expected)
        for context, (value, at, ids) in zip(found.best[feature], expected):
            assert context.activation == pytest.approx(value, rel=1e-4)
            begin = max(0, at - module.BEFORE)
            assert context.token_ids == tuple(ids[begin : at + module.AFTER + 1])
            assert context.token_ids[context.at] == ids[at]


def test_what_is_kept_does_not_grow_with_the_corpus(model, monkeypatch):
    monkeypatch.setattr(module, "SAMPLED", 5)
    found = top_contexts(model, TOKENIZER, corpus(), lambda states: states @ directions().T, layer=LAYER, k=K)
    assert len(found.sampled) == 5
    assert found.sampled_activations.shape == (5, FEATURES)
    again = top_contexts(model, TOKENIZER, corpus(), lambda states: states @ directions().T, layer=LAYER, k=K)
    assert again.sampled == found.sampled
    other = top_contexts(model, TOKENIZER, corpus(), lambda states: states @ directions().T, layer=LAYER, k=K, seed=1)
    assert other.sampled != found.sampled


def test_windows_of_texts_that_do_not_activate(model):
    texts = corpus(20)

    def encode(states):
        return (states @ directions().T - 12).relu()

    found = top_contexts(model, TOKENIZER, texts, encode, layer=LAYER, k=K)
    peaks = torch.stack([(values - 12).relu().amax(0) for _, values in everything(model, texts)])
    for feature in range(FEATURES):
        silent = found.inactive(feature, 50)
        assert len(silent) == int((peaks[:, feature] <= 0).sum())


def test_texts_of_every_form(tmp_path):
    texts = ["one", "two words", "三"]
    (tmp_path / "a.txt").write_text("one\n\n two words \n三\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts) + "\n")
    pyarrow.parquet.write_table(pyarrow.table({"body": texts}), tmp_path / "a.parquet")
    assert list(read_texts(tmp_path / "a.txt")) == texts
    for name in ("a.jsonl", "a.parquet"):
        assert list(read_texts(tmp_path / name, "body")) == texts
        with pytest.raises(CorpusError, match="text"):
            list(read_texts(tmp_path / name))


def test_a_dataset_on_disk(tmp_path, monkeypatch):
    rows = [{"text": "one"}, {"text": "two"}]
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_from_disk=lambda path: rows))
    assert list(read_texts(tmp_path)) == ["one", "two"]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="the package datasets"):
        list(read_texts(tmp_path))


def test_what_is_no_corpus(model, tmp_path):
    with pytest.raises(CorpusError, match="nowhere"):
        list(read_texts(tmp_path / "nowhere.txt"))
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(CorpusError, match="broken"):
        list(read_texts(tmp_path / "broken.jsonl"))
    with pytest.raises(CorpusError, match="no text of two tokens"):
        top_contexts(model, TOKENIZER, ["a", ""], lambda states: states, layer=LAYER)
