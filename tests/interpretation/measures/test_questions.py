"""Files of facts and entities: what is read, and what is refused."""

from __future__ import annotations

import json

import pytest
from transformers.interpretation.measures import (
    QuestionsError,
    of_half,
    read_entities,
    read_facts,
)

GOOD = {"relation": "r", "prompt": "ab", "paraphrase": "cd", "answer": "x", "half": "tuning"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"half": "third"}, "half"),
        ({"answer": "ab"}, "says its answer"),
        ({"prompt": 3}, "prompt is 3"),
        ({"answer": ""}, "answer"),
        ({"extra": "y"}, "extra"),
    ],
)
def test_facts_that_cannot_be_used_are_named(tmp_path, change, message):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"facts": [GOOD, {**GOOD, **change}]}))
    with pytest.raises(QuestionsError, match=f"item 2.*{message}"):
        read_facts(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"facts": []}', '{"facts": 3}', '{"facts": [3]}'])
def test_a_file_without_facts_is_an_error(tmp_path, content):
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(QuestionsError, match=r"facts\.json"):
        read_facts(path)


def test_entities_bring_the_words_for_their_kind(tmp_path):
    path = tmp_path / "entities.json"
    entity = {"prompt": "Rome", "kind": "city", "half": "tuning"}
    path.write_text(json.dumps({"kinds": {"city": ["city", "town"]}, "entities": [entity]}))
    (found,) = read_entities(path)
    assert found.words == ("city", "town")
    assert of_half([found], "tuning") == [found]
    assert of_half([found], "held-out") == []
    path.write_text(json.dumps({"kinds": {}, "entities": [entity]}))
    with pytest.raises(QuestionsError, match="city"):
        read_entities(path)
