"""What evaluate_interpretations.py measures under the name "privileged": the vector or the text?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.interpretation.measures import (
        Answers,
        Fact,
        Interpreter,
        LearningSettings,
        Person,
        PrivilegedShares,
    )


def facts_section(
    interpreter: Interpreter, known: Sequence[Fact], layers: Sequence[int], up_to: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Facts that the model knows: it can tell them from the text of their prompts, too."""
    from transformers.interpretation.measures import read_answers, read_text

    return section(read_answers(interpreter, known, layers), read_text(interpreter, known), up_to)


def persons_sections(
    interpreter: Interpreter,
    persons: Sequence[Person],
    half: str,
    layers: Sequence[int],
    up_to: Mapping[str, Sequence[int]],
    settings: LearningSettings,
) -> dict[str, Any]:
    """Invented persons of one half, read from a copy that has learned about those of both.

    An attribute counts if the copy itself completes it.
    """
    from transformers.interpretation.measures import known_facts, learn_persons, of_half, read_answers, read_text

    model, tokenizer = interpreter.model, interpreter.tokenizer
    facts = [fact for person in of_half(persons, half) for fact in person.facts]
    copy = learn_persons(model, tokenizer, persons, settings, tell_loss)
    learned, guessed = known_facts(copy, tokenizer, facts), known_facts(model, tokenizer, facts)
    print(f"{len(learned)} of {len(facts)} attributes of invented persons were learned", file=sys.stderr)
    found: dict[str, Any] = {
        "invented persons": {
            "learning": asdict(settings),
            "attributes": len(facts),
            "learned": len(learned) / len(facts),
            "completed by the untouched model": len(guessed) / len(facts),
        }
    }
    if len({fact.answer for fact in learned}) < 2:
        print("no privileged information: the copy has learned too little; try more --epochs", file=sys.stderr)
        return found
    units = [fact.paraphrase for fact in learned]  # the person's name: attributes of one person count as one
    read = {
        "persons' names": [replace(fact, prompt=fact.paraphrase) for fact in learned],
        "persons' sentences": learned,
    }
    for name, some in read.items():
        answers = read_answers(interpreter, some, layers, source=copy, units=units)
        found[f"privileged, {name}"] = section(answers, read_text(interpreter, some, units=units), up_to)
    return found


def section(answers: Answers, text_only: PrivilegedShares, up_to: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Per layer, at any layer up to a depth, and what the text alone gives."""
    by_layer = {layer: columns(answers.shares([layer])) for layer in answers.texts}
    any_layer = {label: columns(answers.shares(layers)) for label, layers in up_to.items()}
    return {"layers": by_layer, "any layer": any_layer, "text only": columns(text_only)}


def columns(shares: PrivilegedShares) -> dict[str, Any]:
    """With words for names."""
    return {name.replace("_", " "): value for name, value in asdict(shares).items()}


def tell_loss(epoch: int, loss: float) -> None:
    """While the copy learns."""
    print(f"learning about invented persons, epoch {epoch}: {loss:.3f} nats per token", file=sys.stderr, flush=True)
