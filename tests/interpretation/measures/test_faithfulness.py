"""Whether words of high relevancy come from the vector."""

from __future__ import annotations

import pytest
from measured_cells import Telling, fact, said
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.measures import (
    Said,
    faithfulness,
    score_faithfulness,
)


def of_tokens(**weights):
    pieces = tuple(f" {word}" for word in weights)
    return Said(Interpretation(tuple(range(len(pieces))), (0.5,) * len(pieces), tuple(weights.values())), pieces)


def test_a_words_relevancy_is_the_highest_of_its_tokens():
    interpretation = Interpretation((1, 2, 3, 4), (0.5,) * 4, (0.1, 0.8, 0.3, 0.2))
    parts = Said(interpretation, (" New", "found", "land, a", " dog"))
    assert faithfulness.words(parts) == [("Newfoundland", 0.8), ("a", 0.3), ("dog", 0.2)]


def test_words_of_high_relevancy_come_back_with_the_paraphrase(model):
    facts = [fact("ab", "x", "capital"), fact("ef", "y", "maker")]
    says = [of_tokens(Rome=0.9, city=0.6, the=0.0), of_tokens(Apple=0.8, the=0.05)]
    paraphrased = [said("Rome is the place"), said("the pear")]
    found = score_faithfulness(Telling(model, [*says, *paraphrased]), facts, [3])[3]
    assert found.high.with_paraphrase.value == (1 / 2 + 0) / 2
    assert found.high.with_other.value == 0
    assert found.high.difference.value == 1 / 4
    assert found.high.words == 3
    assert found.low.with_paraphrase.value == found.low.with_other.value == 1
    assert found.low.difference.value == 0
    with pytest.raises(ValueError, match="all facts are of the relation 'capital'"):
        score_faithfulness(Telling(model, []), facts[:1], [3])


def test_no_word_of_a_sort_is_none(model):
    facts = [fact("ab", "x", "capital"), fact("ef", "y", "maker")]
    says = [of_tokens(Rome=0.9), of_tokens(Apple=0.8)]
    assert score_faithfulness(Telling(model, [*says, *says]), facts, [3])[3].low is None
