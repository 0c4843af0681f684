"""Probabilities without surgery, read as a tree, against one pass per text."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from transformers.interpretation import relevancy
from transformers.interpretation.attention import OneQueryAttention
from transformers.interpretation.relevancy import plain_probabilities

PROMPT = (1, 9, 30, 31, 12)
TEXTS = [(5, 6, 7), (5, 6, 8, 9), (5,), (40, 6, 7), (5, 6, 7), (5, 6), (40, 41, 42, 43, 44)]


@torch.no_grad()
def one_by_one(model, text):
    logits = model(torch.tensor([[*PROMPT, *text]]), use_cache=False).logits[0, len(PROMPT) - 1 : -1]
    return logits.softmax(-1).gather(-1, torch.tensor(text)[:, None])[:, 0].tolist()


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.mark.parametrize("levels", [0, 1, 2, 8])
@pytest.mark.parametrize("positions", [1, 5, 512])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_every_text_as_if_it_were_read_alone(llama, monkeypatch, batch_size, levels, positions):
    monkeypatch.setattr(relevancy, "LEVELS", levels)
    monkeypatch.setattr(relevancy, "POSITIONS_PER_PASS", positions)
    with torch.no_grad(), OneQueryAttention():
        found = plain_probabilities(llama, PROMPT, TEXTS, batch_size=batch_size)
    assert set(found) == set(TEXTS)
    for text, probabilities in found.items():
        assert list(probabilities) == pytest.approx(one_by_one(llama, text), abs=1e-5)


def test_every_beginning_is_read_once(llama):
    assert max(map(len, TEXTS)) <= relevancy.LEVELS
    positions = []
    handle = llama.get_input_embeddings().register_forward_hook(lambda _, args, out: positions.append(args[0].numel()))
    try:
        with torch.no_grad():
            plain_probabilities(llama, PROMPT, TEXTS, batch_size=100)
    finally:
        handle.remove()
    beginnings = {text[:end] for text in TEXTS for end in range(1, len(text))}
    assert sum(positions) == len(PROMPT) + len(beginnings)


def test_no_texts(llama):
    assert plain_probabilities(llama, PROMPT, [], batch_size=8) == {}
