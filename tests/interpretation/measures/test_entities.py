"""Kinds of entities, with an interpreter that gives prepared answers."""

from __future__ import annotations

import pytest
from measured_cells import Telling, said
from transformers.interpretation.measures import (
    Entity,
    score_kinds,
)


def test_kinds_net_of_what_another_kind_is_called(model):
    entities = [
        Entity("Rome", "city", "tuning", ("city", "town")),
        Entity("Oslo", "city", "tuning", ("city", "town")),
        Entity("Peru", "country", "tuning", ("country",)),
        Entity("cat", "animal", "tuning", ("animal",)),
    ]
    texts = ["a town", "a big city in a country", "a country", "an animal of a country"]
    found = score_kinds(Telling(model, map(said, texts)), entities, [2])[2]
    assert found.named.value == 1
    assert found.by_other.value == 1 / 4  # for Peru stands the cat, "of a country"
    assert found.net.value == 3 / 4
    with pytest.raises(ValueError, match="all entities are of the kind 'city'"):
        score_kinds(Telling(model, []), entities[:2], [2])
