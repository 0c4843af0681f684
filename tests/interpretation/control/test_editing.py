"""Edits of facts, and what counts as their outcome."""

from __future__ import annotations

import pytest
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.control import ControlSettings, editing
from transformers.interpretation.control.objective import source_ids
from transformers.interpretation.measures.questions import Fact
from transformers.interpretation.measures.recovery import continuations


def fact(relation, prompt, answer):
    return Fact(relation, prompt, answer, "tuning", f"{prompt} again")


FACTS = [fact("a", "p1", "one"), fact("a", "p2", "two"), fact("b", "p3", "three"), fact("b", "p4", "four")]


def test_each_fact_gets_the_answer_of_another_of_its_relation():
    edits = editing.edits_of(FACTS)
    assert [edit.answer for edit in edits] == ["two", "one", "four", "three"]
    assert edits[0].edited == Fact("a", "p1", "two", "tuning", "p1 again")
    assert edits[0].paraphrased == Fact("a", "p1 again", "two", "tuning", "p1")


def test_edits_are_spread_over_the_relations():
    edits = editing.edits_of(FACTS)
    assert editing.spread(edits, 3) == [edits[0], edits[2], edits[1]]


def test_an_outcome_counts_what_is_answered(monkeypatch):
    edit = editing.edits_of(FACTS)[0]
    answered = [edit.paraphrased, FACTS[3]]
    monkeypatch.setattr(
        editing, "known_facts", lambda model, tokenizer, facts: [one for one in facts if one in answered]
    )
    assert editing.outcome_of(None, None, edit, FACTS) == editing.Outcome(False, True, 0.0, 0.5)
    with pytest.raises(ValueError, match="no other facts"):
        editing.outcome_of(None, None, edit, FACTS[:2])


def test_fine_tuning_makes_the_answer_probable():
    model, tokenizer = tiny_model(vocab_size=VOCABULARY), tiny_tokenizer()
    edit = editing.Edit(fact("a", "Hello", "one"), "xy")
    settings = ControlSettings((1, 2, 3), "full", steps=40, learning_rate=0.02, keep=0.1)
    tuned = editing.edit_by_fine_tuning(model, tokenizer, edit, ["ab cd"], 3, settings)
    ids = [source_ids(tokenizer, "Hello")]
    assert tokenizer.decode(continuations(tuned.model, ids, 3)[0]) == " xy"
    assert tokenizer.decode(continuations(model, ids, 3)[0]) != " xy"
