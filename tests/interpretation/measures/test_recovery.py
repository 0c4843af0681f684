"""Recovery of answers, against cases worked out by hand."""

from __future__ import annotations

import pytest
import torch
from measured_cells import TOKENIZER, cell, fact
from transformers.interpretation.measures import (
    known_facts,
    last_token_states,
    recovery,
    score_cells,
    share_named,
)
from transformers.interpretation.runs.source_activations import continue_greedily


def test_guesses_are_subtracted():
    cells = [
        cell("Rome", 1, "Rome, Italy"),  # right
        cell("Oslo", 1, "Oslo", other="Oslo too"),  # a guess: another fact's vector says it too
        cell("Lima", 1, "Lima", random="is Lima"),  # a guess: a random vector says it too
        cell("Bonn", 1, "Bonnet"),  # not a whole word
    ]
    shares = share_named(cells, [1])
    assert [cell.right for cell in cells] == [True, False, False, False]
    found = [share.value for share in (shares.net, shares.named, shares.by_other, shares.by_random)]
    assert found == [1 / 4, 3 / 4, 1 / 4, 1 / 4]


def test_any_layer_takes_the_controls_of_all_these_layers():
    cells = [cell("Rome", 1, "Rome"), cell("Rome", 2, "", other="Rome"), cell("Oslo", 1, ""), cell("Oslo", 2, "Oslo")]
    assert share_named(cells, range(3)).net.value == 1 / 2
    assert share_named(cells, range(3)).named.value == 1
    assert share_named(cells, [1]).net.value == 1 / 2
    assert share_named(cells, [1, 2]).net.n == 2


def test_the_other_fact_is_of_the_same_relation_with_another_answer():
    facts = [
        fact("a1", "Rome", "capital"),
        fact("b1", "Asia", "continent"),
        fact("b2", "asia", "continent"),
        fact("b3", "East Asia", "continent"),
        fact("b4", "Europe", "continent"),
        fact("a2", "Oslo", "capital"),
    ]
    assert recovery.other_facts(facts) == [5, 4, 4, 4, 1, 0]
    with pytest.raises(ValueError, match="no other fact"):
        recovery.other_facts(facts[1:3])


def test_known_facts_are_those_whose_continuation_begins_with_the_answer(model):
    """Equal to one continuation at a time, whatever the prompts' lengths."""
    prompts = ["Hi", "Yes", "No", "abc", "Well, I"]
    texts = [
        TOKENIZER.decode(
            continue_greedily(model, TOKENIZER.encode(prompt), recovery.COMPLETION_TOKENS), skip_special_tokens=True
        )
        for prompt in prompts
    ]
    ids = [TOKENIZER.encode(prompt) for prompt in prompts]
    assert [TOKENIZER.decode(row, skip_special_tokens=True) for row in recovery.continuations(model, ids)] == texts
    facts = [fact(prompt, text.split()[0]) for prompt, text in zip(prompts, texts) if text.split()]
    assert len(facts) >= 2
    assert known_facts(model, TOKENIZER, [*facts, fact("Hi", "never")]) == facts


def test_cells_hold_their_own_and_the_others_interpretation(interpreter):
    facts = [fact("Hi", "x"), fact("No", "y"), fact("Yes", "z")]
    cells = score_cells(interpreter, facts, [0, 3, 4])
    assert [(cell.fact, cell.layer) for cell in cells] == [(one, layer) for one in facts for layer in (0, 3, 4)]
    states = last_token_states(interpreter.model, TOKENIZER, ["Hi", "No", "Yes"], [0, 3, 4])
    for index, one in enumerate(cells):
        row, column = divmod(index, 3)
        assert one.said.text == interpreter(states[row, column][None], (0, 3, 4)[column])[0].text
        assert one.by_other == cells[(row + 1) % 3 * 3 + column].said
        assert one.said.text == TOKENIZER.decode(one.said.interpretation.token_ids, skip_special_tokens=True)


def test_random_vectors_have_the_norms_of_the_states():
    states = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
    random = recovery.random_like(states)
    assert torch.allclose(random.norm(dim=-1), states.norm(dim=-1), rtol=1e-4)
    assert torch.cosine_similarity(random, states, dim=-1).abs().max() < 0.9
    assert torch.equal(random, recovery.random_like(states))
