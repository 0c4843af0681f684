"""Text that a model samples itself: the states of its tokens, and the tokens that come next."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.mapping import training_text as own_text
from transformers.interpretation.mapping.training_text import OwnTextSettings, sample_own_text
from transformers.interpretation.models.activations import capture

TOKENIZER = tiny_tokenizer()
SMALL = OwnTextSettings(texts_per_opening=1, text_tokens=16, most_per_token=1000)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def test_states_and_what_comes_next_are_those_of_the_sampled_texts(model, monkeypatch):
    """Read again without a cache, every state stands where it was taken from, with the tokens that come next there."""
    texts = []
    sample = torch.multinomial

    def remember(*arguments, **options):
        drawn = sample(*arguments, **options)
        texts.append(drawn)
        return drawn

    monkeypatch.setattr(torch, "multinomial", remember)
    spoken = sample_own_text(model, TOKENIZER, [1, 3], replace(SMALL, openings=("ab", "cd")))
    rows = torch.cat([torch.tensor([TOKENIZER.encode("ab"), TOKENIZER.encode("cd")]), *texts], 1)[:, :-1]
    with torch.no_grad():
        probabilities = model(input_ids=rows).logits.softmax(-1)
    first = 2 - 1 + own_text.SKIPPED - 2
    places = [(row, position) for row in range(2) for position in range(first, rows.shape[1])]
    assert len(places) == len(spoken.tokens) == len(spoken.shares) == len(spoken.states[1]) == len(spoken.states[3])
    for row in range(2):
        found = capture(model, rows[row : row + 1], [1, 3], range(rows.shape[1]))
        for position in range(first, rows.shape[1]):
            number = int((spoken.states[1] - found[0, position]).norm(dim=-1).argmin())
            torch.testing.assert_close(spoken.states[1][number], found[0, position], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(spoken.states[3][number], found[1, position], atol=1e-4, rtol=1e-4)
            best, tokens = probabilities[row, position].sort(descending=True)
            assert spoken.tokens[number].tolist() == tokens[: own_text.BEST].tolist()
            best = best[: own_text.BEST]
            torch.testing.assert_close(spoken.shares[number], best / best.sum(), atol=1e-4, rtol=1e-4)


def test_the_same_on_every_call_however_many_at_once(model, monkeypatch):
    settings = replace(SMALL, openings=("ab", "cd", "a", "a" * SMALL.text_tokens))  # the last leaves nothing to say
    one, same = (sample_own_text(model, TOKENIZER, [2], settings) for _ in range(2))
    assert torch.equal(one.states[2], same.states[2]) and torch.equal(one.tokens, same.tokens)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
    monkeypatch.setattr(own_text, "ROWS", 1)
    assert sample_own_text(model, TOKENIZER, [2], settings).tokens.shape == one.tokens.shape


def test_no_token_comes_too_often():
    tokens = torch.tensor([5] * 20 + [6] * 3 + [7])
    chosen = own_text._balanced(tokens, 4, torch.Generator().manual_seed(0))
    assert Counter(tokens[chosen].tolist()) == {5: 4, 6: 3, 7: 1}
    assert len(set(chosen.tolist())) == len(chosen)


@pytest.mark.parametrize(
    "wrong", [{"text_tokens": 4}, {"texts_per_opening": 0}, {"most_per_token": 0}, {"openings": ()}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="at least one"):
        OwnTextSettings(**wrong)
    with pytest.raises(ValueError, match="temperature above 0"):
        OwnTextSettings(temperature=0)
