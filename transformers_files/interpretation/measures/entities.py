"""Entity description: does the interpretation of an entity's last token name its kind?

What the same words would be called for an entity of another kind is subtracted: a prompt whose examples are countries
and companies says "country" by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .interpreter import Interpreter, last_token_states
from .questions import Entity, names
from .statistics import Estimate, estimate


@dataclass(frozen=True)
class KindShares:
    """Shares of entities."""

    net: Estimate
    """Named, and not by the interpretation of the other entity."""
    named: Estimate
    by_other: Estimate
    """An entity of another kind, in its place."""


def score_kinds(interpreter: Interpreter, entities: Sequence[Entity], layers: Sequence[int]) -> dict[int, KindShares]:
    """Layer → shares of entities whose kind is named.

    Raises:
        ValueError: all entities are of one kind.
    """
    others = [_other(entities, index) for index in range(len(entities))]
    prompts = [entity.prompt for entity in entities]
    states = last_token_states(interpreter.model, interpreter.tokenizer, prompts, layers)
    found = {}
    for column, layer in enumerate(layers):
        texts = [said.text for said in interpreter(states[:, column], layer)]
        named = [names_kind(entity, text) for entity, text in zip(entities, texts)]
        by_other = [names_kind(entity, texts[other]) for entity, other in zip(entities, others)]
        net = [hit and not guess for hit, guess in zip(named, by_other)]
        found[layer] = KindShares(estimate(net), estimate(named), estimate(by_other))
    return found


def names_kind(entity: Entity, text: str) -> bool:
    """Whether a text contains a word for the entity's kind, as a whole word."""
    return any(names(word, text) for word in entity.words)


def _other(entities: Sequence[Entity], index: int) -> int:
    """The next entity of another kind."""
    following = [*range(index + 1, len(entities)), *range(index)]
    for other in following:
        if entities[other].kind != entities[index].kind:
            return other
    raise ValueError(f"all entities are of the kind {entities[index].kind!r}: give some of another")
