"""Faithfulness of relevancy: do words of high relevancy come from the vector?

They should come back when the vector of a paraphrase of the source prompt is interpreted, and vanish when the vector of
a fact of another relation is. Words of low relevancy come from the interpretation prompt or from the words before them:
neither vector should make a difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .interpreter import Interpreter, Said, last_token_states
from .questions import Fact, names
from .statistics import Estimate, estimate

HIGH, LOW = 0.5, 0.1
"""Relevancy from which a word's is high, and up to which it is low."""


@dataclass(frozen=True)
class Returns:
    """Shares of words, averaged per fact."""

    with_paraphrase: Estimate
    """Come back with the paraphrase's vector."""
    with_other: Estimate
    """Come back with another fact's vector."""
    difference: Estimate
    """With the paraphrase's minus with the other fact's."""
    words: int


@dataclass(frozen=True)
class Faithfulness:
    """The shares of one layer; None where there are no such words."""

    high: Returns | None
    low: Returns | None


def score_faithfulness(
    interpreter: Interpreter, facts: Sequence[Fact], layers: Sequence[int]
) -> dict[int, Faithfulness]:
    """Layer → how the words of interpretations come back.

    Raises:
        ValueError: all facts are of one relation.
    """
    others = [_other(facts, index) for index in range(len(facts))]
    prompts, paraphrases = ([getattr(fact, name) for fact in facts] for name in ("prompt", "paraphrase"))
    model, tokenizer = interpreter.model, interpreter.tokenizer
    states = last_token_states(model, tokenizer, prompts, layers)
    in_other_words = last_token_states(model, tokenizer, paraphrases, layers)
    found = {}
    for column, layer in enumerate(layers):
        said = interpreter(states[:, column], layer)
        again = [one.text for one in interpreter(in_other_words[:, column], layer)]
        elsewhere = [said[other].text for other in others]
        found[layer] = Faithfulness(
            _returns([[word for word, weight in words(one) if weight >= HIGH] for one in said], again, elsewhere),
            _returns([[word for word, weight in words(one) if weight <= LOW] for one in said], again, elsewhere),
        )
    return found


def words(said: Said) -> list[tuple[str, float]]:
    """The words of an interpretation, each with the highest relevancy of the tokens that it consists of."""
    ends, length = [], 0
    for piece in said.pieces:
        length += len(piece)
        ends.append(length)
    starts = [0, *ends[:-1]]
    tokens = list(zip(starts, ends, said.interpretation.relevancy))
    return [
        (match.group(), max(weight for start, end, weight in tokens if start < match.end() and end > match.start()))
        for match in re.finditer(r"\w+", said.text)
    ]


def _returns(chosen: Sequence[Sequence[str]], again: Sequence[str], elsewhere: Sequence[str]) -> Returns | None:
    """Averaged per fact, since words of one fact are not independent."""
    with_paraphrase, with_other = [], []
    for mine, paraphrased, other in zip(chosen, again, elsewhere):
        if mine:
            with_paraphrase.append(sum(names(word, paraphrased) for word in mine) / len(mine))
            with_other.append(sum(names(word, other) for word in mine) / len(mine))
    if not with_paraphrase:
        return None
    difference = [one - other for one, other in zip(with_paraphrase, with_other)]
    return Returns(estimate(with_paraphrase), estimate(with_other), estimate(difference), sum(map(len, chosen)))


def _other(facts: Sequence[Fact], index: int) -> int:
    """The next fact of another relation."""
    following = [*range(index + 1, len(facts)), *range(index)]
    for other in following:
        if facts[other].relation != facts[index].relation:
            return other
    raise ValueError(f"all facts are of the relation {facts[index].relation!r}: give some of another")
