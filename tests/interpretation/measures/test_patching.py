"""Attribute extraction and two-step questions, against one pass at a time."""

from __future__ import annotations

import pytest
import torch
from reference import reference_greedy
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.measures import patching
from transformers.interpretation.measures.questions import Fact, names

TOKENIZER = tiny_tokenizer()


def facts_of(relation, template, pairs, half="tuning"):
    return [
        Fact(relation, template.format(subject), answer, half, f"{relation} {subject}?") for subject, answer in pairs
    ]


CAPITALS = facts_of(
    "capital", "Capital of {} is", [("Japan", "Tokyo"), ("Italy", "Rome"), ("Iran", "Tehran"), ("Peru", "Lima")]
)
CITIES = facts_of(
    "country of city",
    "{} is a city in",
    [("Kyoto", "Japan"), ("Milan", "Italy"), ("Nice", "France"), ("Lyon", "France")],
)
OTHERS = facts_of("plural", "One {}, two", [("cat", "cats"), ("cow", "cows")])
FACTS = [*CAPITALS, *CITIES, *OTHERS]


def test_what_stands_around_the_subjects():
    found = patching.questions_of(FACTS)
    assert set(found) == {"capital", "country of city"}  # of the third there are too few
    assert (found["capital"].before, found["capital"].after) == ("Capital of ", " is")
    assert (found["country of city"].before, found["country of city"].after) == ("", " is a city in")
    assert [found["capital"].subject(fact) for fact in CAPITALS] == ["Japan", "Italy", "Iran", "Peru"]
    assert found["capital"].of("Cuba") == "Capital of Cuba is"
    assert found["capital"].prompt(TOKENIZER).insert_locations == (11,)


def test_pairs_that_follow_one_another():
    pairs = patching.two_steps_of(patching.questions_of(FACTS), FACTS)
    assert [(pair.first.prompt, pair.second.prompt) for pair in pairs] == [
        ("Kyoto is a city in", "Capital of Japan is"),
        ("Milan is a city in", "Capital of Italy is"),
    ]
    assert pairs[0].composed == "Capital of the country where the city of Kyoto is located is"


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def answered(model, question, vector, layer):
    prompt = question.prompt(TOKENIZER)
    info = {
        layer: (list(prompt.insert_locations), vector.view(1, 1, -1)),
        "overlay_strength": 1.0,
        "replacing_mode": "normalized",
    }
    tokens = reference_greedy(model, list(prompt.input_ids), info, 8)
    return TOKENIZER.decode(tokens[: tokens.index(2)] if 2 in tokens else tokens)


@torch.no_grad()
def test_attributes(model, monkeypatch):
    """A random model names nothing; each answer becomes what it says of the subject or of another one."""
    questions = patching.questions_of(FACTS)
    facts, other = CAPITALS, [1, 2, 3, 0]
    states = []
    for fact in facts:
        ids = TOKENIZER.encode(f"I have heard of {questions['capital'].subject(fact)}", add_special_tokens=False)
        states.append(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -1])
    own = [answered(model, questions["capital"], state, 2) for state in states]
    swapped = [own[n] for n in other]
    seen = []
    monkeypatch.setattr(
        patching, "names", lambda answer, text: seen.append((answer, text)) or answer in ("Rome", "Lima")
    )
    found = patching.score_attributes(model, TOKENIZER, questions, facts, facts, [2], batch_size=3)[2]
    assert seen == [(fact.answer, text) for texts in (own, swapped) for fact, text in zip(facts, texts)]
    assert (found.named.value, found.by_other.value, found.net.value) == (0.5, 0.5, 0)
    assert found.linear_probe.value == 1  # it is fitted on these very facts
    with pytest.raises(ValueError, match="no fact is of a relation"):
        patching.score_attributes(model, TOKENIZER, questions, OTHERS, facts, [2], batch_size=3)


def test_the_probe_is_a_ridge_regression(model):
    generator = torch.Generator().manual_seed(0)
    fitted, states = torch.randn(4, 32, generator=generator), torch.randn(3, 32, generator=generator)
    answers = patching._answers(model, TOKENIZER, CAPITALS)
    asked = CAPITALS[1:]
    inputs, targets = fitted - fitted.mean(0), torch.stack([answers[fact.answer] for fact in CAPITALS])
    penalty = 0.1 * inputs.square().sum(1).mean() * torch.eye(32)
    weights = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ (targets - targets.mean(0)))
    made = (states - fitted.mean(0)) @ weights + targets.mean(0)
    expected = []
    for fact, row in zip(asked, made):
        likeness = {other.answer: float(row @ answers[other.answer]) for other in CAPITALS}
        expected.append(max(likeness, key=likeness.get) == fact.answer)
    assert patching._probed(asked, CAPITALS, states, fitted, answers) == expected
    assert patching._probed(CAPITALS, CAPITALS, fitted, fitted, answers) == [True] * 4


@torch.no_grad()
def test_two_steps(model, monkeypatch):
    questions = patching.questions_of(FACTS)
    pairs = patching.two_steps_of(questions, FACTS)
    texts = {1: [], 2: []}
    for pair in pairs:
        ids = TOKENIZER.encode(pair.first.prompt, add_special_tokens=False)
        state = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -1]
        for into, said in texts.items():
            said.append(answered(model, pair.question, state, into))
    composed = []
    for pair in pairs:
        tokens = reference_greedy(model, TOKENIZER.encode(pair.composed, add_special_tokens=False), {}, 8)
        composed.append(TOKENIZER.decode(tokens[: tokens.index(2)] if 2 in tokens else tokens))
    seen = []
    monkeypatch.setattr(patching, "names", lambda answer, text: seen.append((answer, text)) or answer == "Tokyo")
    scored = patching.score_two_steps(model, TOKENIZER, pairs, [1], [1, 2], batch_size=3)
    assert list(scored) == [(1, 1), (1, 2)]
    answers = ["Tokyo", "Rome"]
    said = (composed, texts[1], texts[1][::-1], texts[2], texts[2][::-1])
    assert seen == [(answer, text) for some in said for answer, text in zip(answers, some)]
    found = scored[1, 2]
    assert (found.composed.value, found.named.value, found.by_other.value, found.net.value) == (0.5, 0.5, 0.5, 0)
    with pytest.raises(ValueError, match="1 two-step questions"):
        patching.score_two_steps(model, TOKENIZER, pairs[:1], [1], [1], batch_size=3)


def test_names_is_what_counts():
    assert names("Rome", "it is rome.") and not names("Rome", "Romero")
