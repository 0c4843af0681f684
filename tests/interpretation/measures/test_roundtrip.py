"""The way back from an interpretation's words to its vector."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.mapping.affine import AffineMap
from transformers.interpretation.measures import (
    Fact,
    Interpreter,
    RoundTrip,
    RoundTripSettings,
    Said,
    ScoredCell,
    compare_scores,
    fit_round_trip,
    last_token_states,
    roundtrip,
)
from transformers.interpretation.measures.roundtrip import representations, ridge_map
from transformers.interpretation.measures.trust import roc_area


@pytest.fixture(scope="module")
def interpreter():
    tokenizer = tiny_tokenizer()
    prompt = InterpretationPromptSpec("short", text="ab: _ is").build(tokenizer)
    model = tiny_model(vocab_size=VOCABULARY)
    return Interpreter(model, tokenizer, prompt, InterpretationSettings(max_new_tokens=3), batch_size=64)


def test_the_ridge_is_the_minimum_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=generator) + 3, torch.randn(30, 2, generator=generator) - 1
    found = ridge_map(x, y, 0.2)
    weight, bias = found.weight.double().requires_grad_(), found.bias.double().requires_grad_()
    penalty = 0.2 * 30 * (x - x.mean(0)).pow(2).mean()
    loss = (x.double() @ weight + bias - y.double()).pow(2).sum() + penalty * weight.pow(2).sum()
    loss.backward()
    assert weight.grad.abs().max() < 1e-3
    assert bias.grad.abs().max() < 1e-3


def test_a_text_is_represented_by_its_mean_state_in_the_middle(interpreter):
    model, tokenizer = interpreter.model, interpreter.tokenizer
    found = representations(interpreter, ["abc", "", "abc"])
    states = model(torch.tensor([tokenizer.encode("abc")]), output_hidden_states=True).hidden_states
    middle = states[model.config.num_hidden_layers // 2][0].mean(0)
    assert torch.allclose(found[0], middle, atol=1e-5)
    assert torch.equal(found[0], found[2])
    assert not found[1].any()


def test_the_score_is_the_share_of_distractors_that_are_less_alike(interpreter, monkeypatch):
    """Texts lead back to the axes of a plane; by hand around a centre of 0."""
    axes = {"x": torch.tensor([2.0, 0.0]), "y": torch.tensor([0.0, 3.0])}
    monkeypatch.setattr(roundtrip, "representations", lambda interpreter, texts: torch.stack([axes[t] for t in texts]))
    distractors = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    identity = AffineMap(torch.eye(2), torch.zeros(2))
    trip = RoundTrip(interpreter, {5: identity}, {5: torch.zeros(2)}, {5: distractors})
    vectors = torch.tensor([[5.0, 1.0], [5.0, 1.0], [0.0, 9.0]])
    assert trip.score(["x", "y", "y"], vectors, 5) == pytest.approx([3 / 4, 2 / 4, 3.5 / 4], abs=1e-6)


def test_states_are_had_back_better_from_words_about_them_than_from_others(interpreter):
    settings = RoundTripSettings(states=150, distractors=40, ridge=0.1)
    trip = fit_round_trip(interpreter, [1, 2], settings)
    assert [len(trip.distractors[layer]) for layer in (1, 2)] == [40, 40]
    prompts = [f"{first}{second}" for first in "abcdefgh" for second in "klmnop"]
    states = last_token_states(interpreter.model, interpreter.tokenizer, prompts, [1])[:, 0]
    texts = [said.text for said in interpreter(states, 1)]
    own = trip.score(texts, states, 1)
    others = trip.score(texts[1:] + texts[:1], states, 1)
    assert sum(own) > sum(others)


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([1, 99], RoundTripSettings(), "inputs of decoder layers"),
        ([1], RoundTripSettings(distractors=10**6), "too few"),
    ],
)
def test_what_cannot_be_fitted(interpreter, layers, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_round_trip(interpreter, layers, settings)


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="ridge above 0"):
        RoundTripSettings(ridge=0.0)


def cell(answer: str, layer: int, text: str, relevancy: float | None) -> ScoredCell:
    fact = Fact("r", f"of {answer}s", answer, "tuning", paraphrase="cd")
    nothing = Said(Interpretation((), (), ()), ("",))
    weights = () if relevancy is None else (relevancy,)
    return ScoredCell(
        fact, layer, Said(Interpretation((1,) * len(weights), weights, weights), (text,)), nothing, nothing
    )


def test_scores_are_compared_on_the_same_cells(interpreter):
    """By hand: relevancy puts the right one last, the way back puts it first; layer 3 has no way back."""
    cells = [cell("a", 1, "a", 0.1), cell("b", 1, "x", 0.5), cell("c", 1, "x", 0.9), cell("d", 3, "d", 1.0)]
    cells.append(cell("e", 1, "e", None))

    class Knowing(RoundTrip):
        def score(self, texts, vectors, layer):
            assert (len(texts), layer) == (3, 1)
            return [0.9, 0.2, 0.6]

    found = compare_scores(Knowing(interpreter, {1: None}, {}, {}), cells, coverages=(1.0, 0.34))
    assert list(found) == ["relevancy", "round trip", "both"]
    assert [one.area for one in found.values()] == [0.0, 1.0, 0.5]
    assert [one.area_within_layers for one in found.values()] == [0.0, 1.0, 0.5]
    assert [one.precision[0.34].value for one in found.values()][:2] == [0.0, 1.0]
    assert {one.precision[1.0].value for one in found.values()} == {1 / 3}


def test_pairs_of_one_group_alone():
    scores, right, groups = [0.9, 0.8, 0.1, 0.2], [True, True, False, True], [1, 1, 2, 2]
    assert roc_area(scores, right) == 1.0
    assert roc_area(scores, right, groups) == 1.0
    assert roc_area([0.9, 0.8, 0.3, 0.2], right, groups) == 0.0
    assert roc_area([0.9], [True], [1]) is None
