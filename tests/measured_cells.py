"""Facts and scored cells written by hand."""

from __future__ import annotations

from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.measures import (
    Fact,
    Said,
    ScoredCell,
)

TOKENIZER = tiny_tokenizer()


def fact(prompt="ab", answer="x", relation="r", half="tuning"):
    return Fact(relation, prompt, answer, half, paraphrase="cd")


def said(text):
    return Said(Interpretation((1,), (0.5,), (0.5,)), (text,))


def cell(answer, layer, text, other="", random=""):
    return ScoredCell(fact(answer=answer, prompt=f"of {answer}s"), layer, said(text), said(other), said(random))


class Telling:
    """An interpreter that gives prepared texts, state by state."""

    def __init__(self, model, answers):
        self.model, self.tokenizer = model, TOKENIZER
        self._answers = iter(answers)

    def __call__(self, vectors, layer):
        return [next(self._answers) for _ in vectors]
