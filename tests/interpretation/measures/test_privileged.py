"""Whether the vector is read or the text: shares worked out by hand, and a tiny copy that learns two persons."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.measures import (
    Answers,
    Fact,
    Interpreter,
    LearningSettings,
    Person,
    QuestionsError,
    known_facts,
    learn_persons,
    persons,
    privileged,
    read_answers,
    read_persons,
    read_text,
)
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec

TOKENIZER = tiny_tokenizer()
PHRASES = {"city": "lives in {}", "pet": "has a {}"}
ITEMS = [
    {"name": "Al Bo", "half": "tuning", "city": "Rome", "pet": "cat"},
    {"name": "Cy Di", "half": "held-out", "city": "Oslo", "pet": "dog"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def interpreter(model):
    prompt = InterpretationPromptSpec("short", text="ab: _ _ is").build(TOKENIZER)
    return Interpreter(model, TOKENIZER, prompt, InterpretationSettings(max_new_tokens=4), batch_size=8)


def fact(prompt, answer, relation="r"):
    return Fact(relation, prompt, answer, "tuning", paraphrase="of it")


def test_a_person_is_a_fact_for_each_phrase(tmp_path):
    path = tmp_path / "persons.json"
    path.write_text(json.dumps({"phrases": PHRASES, "persons": ITEMS}))
    first, _ = read_persons(path)
    assert [(one.relation, one.prompt, one.answer, one.half) for one in first.facts] == [
        ("city", "Al Bo lives in", "Rome", "tuning"),
        ("pet", "Al Bo has a", "cat", "tuning"),
    ]
    assert first.text([1, 0]) == "Al Bo has a cat, lives in Rome."


@pytest.mark.parametrize(
    ("phrases", "change", "message"),
    [
        (PHRASES, {"half": "third"}, "item 2: .*third"),
        (PHRASES, {"food": "rice"}, "item 2: 'Cy Di' has"),
        ({**PHRASES, "city": "in {} at home"}, {}, "in {} at home"),
        (PHRASES, {"city": "Cy"}, "says its answer"),
    ],
)
def test_persons_that_cannot_be_used_are_named(tmp_path, phrases, change, message):
    path = tmp_path / "persons.json"
    path.write_text(json.dumps({"phrases": phrases, "persons": [ITEMS[0], {**ITEMS[1], **change}]}))
    with pytest.raises(QuestionsError, match=message):
        read_persons(path)


def test_shares_are_of_answers_and_intervals_of_persons():
    facts = [fact("A", "Rome", "city"), fact("A", "cat", "pet"), fact("B", "Oslo", "city"), fact("B", "dog", "pet")]
    texts = {
        1: {"A": "Rome and a dog", "B": "a dog"},  # Rome; of B's dog, A's text says it too
        2: {"A": "no", "B": "Oslo or Rome"},  # Oslo, and for A's Rome a guess
    }
    answers = Answers(facts, texts, ["A", "A", "B", "B"])
    first, second, both = answers.shares([1]), answers.shares([2]), answers.shares([1, 2])
    assert [share.named.value for share in (first, second, both)] == [2 / 4, 1 / 4, 3 / 4]
    assert [share.by_other.value for share in (first, second, both)] == [1 / 4, 1 / 4, 2 / 4]
    assert [share.net.value for share in (first, second, both)] == [1 / 4, 1 / 4, 1 / 4]
    assert first.by_shuffled == first.by_other  # of two prompts, the other one
    assert first.named.n == 2


def test_every_prompt_gets_another_ones_vector():
    prompts = list("abcdefgha")
    drawn = privileged.shuffled(prompts)
    assert sorted(drawn) == sorted(drawn.values()) == sorted(set(prompts))
    assert all(prompt != other for prompt, other in drawn.items())
    assert drawn == privileged.shuffled(prompts)


def test_the_sources_embeddings_are_interpreted_by_the_untouched_model(interpreter):
    """Vectors from plain forwards of the source; a prompt of several facts is interpreted once."""
    source = tiny_model(vocab_size=VOCABULARY, rms_norm_eps=0.5)
    facts = [fact("Hi", "x"), fact("No", "y"), fact("Hi", "z")]
    found = read_answers(interpreter, facts, [1, 3], source=source)
    for layer in (1, 3):
        assert list(found.texts[layer]) == ["Hi", "No"]
        for prompt, text in found.texts[layer].items():
            with torch.no_grad():
                states = source(torch.tensor([TOKENIZER.encode(prompt)]), output_hidden_states=True).hidden_states
            assert text == interpreter(states[layer][:, -1], layer)[0].text
    assert read_answers(interpreter, facts, [3]).texts != {3: found.texts[3]}


def test_the_text_takes_the_placeholders_place(model, interpreter):
    """Each run of placeholders becomes the text; then comes the model's own continuation, up to the stop."""
    prompt = InterpretationPromptSpec("two", text="ab: _ _ is _!").build(TOKENIZER)
    assert privileged.with_text(prompt, TOKENIZER, "Hi") == TOKENIZER.encode("ab: Hi is Hi!")
    ids = TOKENIZER.encode("ab: Hi is")
    for _ in range(4):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    text = TOKENIZER.decode(ids[-4:], skip_special_tokens=True)
    facts = [fact("Hi", text.split()[0]), fact("No", "never")]
    assert read_text(interpreter, facts).named.value == 1 / 2
    stopping = InterpretationPromptSpec("short", text="ab: _ _ is", stop=text.strip()[0]).build(TOKENIZER)
    assert read_text(replace(interpreter, prompt=stopping), facts).named.value == 0


def test_a_copy_learns_what_the_model_does_not_know(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    people = [Person.of(PHRASES, item) for item in ITEMS]
    facts = [fact for person in people for fact in person.facts]
    losses = []
    settings = LearningSettings(epochs=60, learning_rate=0.02, rank=8)
    learned = learn_persons(model, TOKENIZER, people, settings, lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == list(range(60)) and losses[-1][1] < losses[0][1] / 4
    assert known_facts(model, TOKENIZER, facts) == []
    assert known_facts(learned, TOKENIZER, facts) == facts
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("lora" in name for name, _ in model.named_modules())
    again = learn_persons(model, TOKENIZER, people, LearningSettings(epochs=2))
    same = learn_persons(model, TOKENIZER, people, LearningSettings(epochs=2))
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), same.parameters()))


def test_the_loss_is_that_of_each_text_alone(model):
    texts = [TOKENIZER.encode("Al Bo lives in Rome."), TOKENIZER.encode("Cy")]
    totals = [
        torch.nn.functional.cross_entropy(
            model(torch.tensor([ids])).logits[0, :-1], torch.tensor(ids[1:]), reduction="sum"
        )
        for ids in texts
    ]
    expected = sum(totals) / sum(len(ids) - 1 for ids in texts)
    torch.testing.assert_close(persons._loss(model, texts), expected)


def test_without_peft_there_is_a_remedy(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install peft"):
        learn_persons(model, TOKENIZER, [])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"rank": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="at least one epoch"):
        LearningSettings(**wrong)
