"""Lenses and the model's own next token, against the model's own pass."""

from __future__ import annotations

import pytest
import torch
from measured_cells import TOKENIZER, fact
from tiny_models import available_families, tiny_model
from transformers.interpretation.mapping.affine import AffineMap
from transformers.interpretation.measures import (
    answer_ranks,
    lens_ranks,
    lens_shares,
    own_layer_shares,
    shares_among_best,
)
from transformers.interpretation.models.activations import capture


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
def test_the_lens_after_the_last_layer_is_the_model(family):
    """There, and with the head alone where the state is after the final norm, it ranks as the model itself does."""
    model = tiny_model(family)
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].float()
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    normed = capture(model, ids, [4], range(5))[0]
    assert torch.equal(lens_ranks(model, normed, 4, tokens), expected)


def test_the_lens_of_a_middle_layer_is_norm_and_head(model):
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    states = capture(model, ids, [2], range(5))[0]
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(states))
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    assert torch.equal(lens_ranks(model, states, 2, tokens), expected)


def test_a_lens_comes_before_norm_and_head(model):
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    states = capture(model, ids, [2], range(5))[0]
    one = AffineMap(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)), torch.ones(32))
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(torch.stack([one.weight.T @ state + 1 for state in states])))
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    assert torch.equal(lens_ranks(model, states, 2, tokens, one), expected)
    assert not torch.equal(lens_ranks(model, states, 2, tokens), expected)
    with pytest.raises(ValueError, match="after the final norm"):
        lens_ranks(model, states, 4, tokens, one)


def test_a_lens_is_asked_at_its_own_layers_alone(model):
    facts = [fact("Hi", "x"), fact("No", "y")]
    identity = AffineMap(torch.eye(32), torch.zeros(32))
    plain = answer_ranks(model, TOKENIZER, facts, [0, 2, 4])
    mapped = answer_ranks(model, TOKENIZER, facts, [0, 2, 4], {2: identity, 3: identity})
    assert list(mapped) == [2] and torch.equal(mapped[2], plain[2])
    assert answer_ranks(model, TOKENIZER, facts, [0], {2: identity}) == {}


def test_among_the_best_at_any_layer():
    shares = shares_among_best(torch.tensor([0, 5, 30, 9]), torch.tensor([3, 10, 0, 50]))
    assert {best: share.value for best, share in shares.items()} == {1: 2 / 4, 10: 4 / 4}
    assert shares_among_best(torch.tensor([0, 10]))[10].value == 1 / 2


def test_baselines_have_one_share_per_layer(interpreter):
    facts = [fact("Hi", "x"), fact("No", "y")]
    lens = lens_shares(interpreter.model, TOKENIZER, facts, [0, 2, 4])
    assert list(lens) == [0, 2, 4]
    assert all(shares[1].value <= shares[10].value for shares in lens.values())
    assert list(own_layer_shares(interpreter, facts, [0, 2, 4])) == [0, 2]
