"""Errors that name everything at once, and words that are nearly right."""

from __future__ import annotations

import pytest
from transformers.interpretation.errors.problems import ProblemsError, problems_of
from transformers.interpretation.errors.suggestions import did_you_mean
from transformers.interpretation.measures import QuestionsError
from transformers.interpretation.prompts.examples import ExamplesError
from transformers.interpretation.results.csv_table import ResultsError
from transformers.interpretation.runs.limits import PlanError
from transformers.interpretation.runs.preparation import RequestError


@pytest.mark.parametrize("error", [ExamplesError, QuestionsError, ResultsError, PlanError, RequestError])
def test_each_problem_is_one_line_that_names_the_file(error):
    raised = error(["first\nof two lines", "second"], "a.json")
    assert isinstance(raised, ProblemsError)
    assert problems_of(raised) == ("a.json: first of two lines", "a.json: second")
    assert str(raised) == "a.json: first of two lines\na.json: second"
    assert error(["alone"]).problems == ("alone",)
    assert problems_of(OSError("one\ntwo")) == ("one two",)


def test_what_is_close_is_suggested_and_nothing_else():
    assert did_you_mean("promt", ["answer", "prompt"]) == " (did you mean 'prompt'?)"
    assert did_you_mean("colour", ["answer", "prompt"]) == ""
    assert did_you_mean("a" * 10**7, ["a" * 40]) == did_you_mean("a", ["a" * 10**7]) == ""
