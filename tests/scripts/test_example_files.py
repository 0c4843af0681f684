"""The example files have the properties that their users rely on."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import DEFAULT_PROMPT, DEFAULTS
from transformers.interpretation.models.activations import capture
from transformers.interpretation.prompts.examples import read_examples
from transformers.interpretation.prompts.interpretation_prompt import encode_prompt
from transformers.interpretation.prompts.spec_files import find_spec
from transformers.interpretation.vectors.labelled import read_labelled

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "examples"
DATA = ("facts.json", "entities.json", "persons.json", "control.json")
PROMPTS = sorted(path.name for path in FOLDER.glob("*.json") if path.name not in DATA)


def names(answer: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(answer)}\b", text, re.IGNORECASE) is not None


@pytest.mark.parametrize("file", PROMPTS)
def test_prompt_files_are_read_without_a_warning(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = read_examples(FOLDER / file)
    assert len({example.prompt for example in examples}) == len(examples)
    for example in examples:
        assert example.answer is None or not names(example.answer, example.prompt)


def test_there_is_a_file_of_every_kind():
    assert set(PROMPTS) >= {
        "ambiguous.json",
        "demo.json",
        "guessing_game.json",
        "hidden_answers.json",
        "two_steps.json",
    }


def test_the_demo_is_small(embedded_tokenizer):
    """All layers, all tokens of the prompt and one of the output."""
    examples = read_examples(FOLDER / "demo.json")
    tokens = [len(encode_prompt(embedded_tokenizer, example.prompt, raw=example.raw)) + 1 for example in examples]
    assert 31 * sum(tokens) <= 1500
    assert any(example.answer for example in examples)


@pytest.mark.parametrize(
    ("answer", "layer", "begins"),
    [
        ("Paris", 24, " Paris"),
        ("Asia", 24, " Asia"),
        ("cat", 8, ": a big cat"),
        ("car", 15, ": a car manufacturer"),
    ],
)
def test_the_demo_names_what_its_prompts_do_not_say(embedded_model, embedded_tokenizer, answer, layer, begins):
    """The same words on every version, by default: the last token's state."""
    (example,) = (example for example in read_examples(FOLDER / "demo.json") if example.answer == answer)
    ids = torch.tensor([encode_prompt(embedded_tokenizer, example.prompt, raw=example.raw)])
    vector = capture(embedded_model, ids, [layer], [-1])[0, 0]
    cell = Cell(vector, find_spec(DEFAULT_PROMPT).build(embedded_tokenizer), depth=layer / 30)
    settings = replace(DEFAULTS, max_new_tokens=8)
    (interpretation,) = interpret_chunk(embedded_model, [cell], settings, batch_size=1)
    text = embedded_tokenizer.decode(interpretation.token_ids)
    assert text.startswith(begins)
    assert names(answer, text)


def test_facts_and_entities_are_enough_and_halved():
    facts = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))["facts"]
    assert len(facts) >= 200
    assert len({fact["relation"] for fact in facts}) >= 10
    content = json.loads((FOLDER / "entities.json").read_text(encoding="utf-8"))
    entities = content["entities"]
    assert len(entities) >= 100
    assert {entity["kind"] for entity in entities} == set(content["kinds"])
    assert len(content["kinds"]) >= 8
    for items, group in ((facts, "relation"), (entities, "kind")):
        assert len({item["prompt"] for item in items}) == len(items)
        halves = Counter((item[group], item["half"]) for item in items)
        for name in {item[group] for item in items}:
            assert abs(halves[name, "tuning"] - halves[name, "held-out"]) <= 1
    assert not [fact for fact in facts if names(fact["answer"], fact["prompt"])]


def test_invented_persons_are_enough_halved_and_of_balanced_values():
    """No value may be guessed, and no name gives one away."""
    content = json.loads((FOLDER / "persons.json").read_text(encoding="utf-8"))
    persons, attributes = content["persons"], list(content["phrases"])
    assert len(persons) >= 40 and len(attributes) >= 4
    words = [word for person in persons for word in person["name"].split()]
    assert len(set(words)) == len(words)
    for half in ("tuning", "held-out"):
        some = [person for person in persons if person["half"] == half]
        assert len(some) == len(persons) / 2
        for attribute in attributes:
            assert set(Counter(person[attribute] for person in some).values()) == {3}
    values = {person[attribute].casefold() for person in persons for attribute in attributes}
    assert values.isdisjoint(word.casefold() for word in words)


def test_the_default_prompt_says_nothing_that_is_asked_for():
    """No value of an invented person and no entity of the held-out half is a word of its examples."""
    persons = json.loads((FOLDER / "persons.json").read_text(encoding="utf-8"))
    entities = json.loads((FOLDER / "entities.json").read_text(encoding="utf-8"))["entities"]
    held_out = {entity["prompt"] for entity in entities if entity["half"] == "held-out"}
    values = {person[attribute] for person in persons["persons"] for attribute in persons["phrases"]}
    text = find_spec(DEFAULT_PROMPT).sequence[0]
    assert not {word for word in values | held_out if names(word, text)}


def test_topics_are_told_apart_by_their_labels():
    table = read_labelled(FOLDER / "topics.csv")
    assert len(set(table.labels)) == len(table.labels) and len(table.of("test").labels) >= 100
    for prompt, label in zip(table.prompts, table.labels):
        assert label in prompt
