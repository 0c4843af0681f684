"""Facts and entities with known answers, read and checked: what interpretations are measured on.

facts.json: `{"facts": [{"relation": "capital", "prompt": "The capital of Italy is", "answer": "Rome", "half": "tuning",
"paraphrase": "Italy's capital is"}, …]}`; entities.json: `{"kinds": {"city": ["city", "town"], …}, "entities":
[{"prompt": "Paris", "kind": "city", "half": "tuning"}, …]}`. Prompts and settings are chosen on the half "tuning"
alone; what is reported is measured on the half "held-out".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors.problems import ProblemsError

HALVES = ("tuning", "held-out")


class Halved(Protocol):
    """What belongs to one of the halves."""

    @property
    def half(self) -> str: ...


Item = TypeVar("Item", bound=Halved)


class QuestionsError(ProblemsError):
    """A file of facts or entities that cannot be used."""


@dataclass(frozen=True)
class Fact:
    """A prompt that a model completes with its answer, if it knows the fact."""

    relation: str
    prompt: str
    answer: str
    half: str
    paraphrase: str
    """The same question in other words."""

    def __post_init__(self) -> None:
        _check_texts(self)
        if names(self.answer, self.prompt):
            raise ValueError(f"the prompt {self.prompt!r} says its answer, {self.answer!r}")


@dataclass(frozen=True)
class Entity:
    """A name whose last token holds what it names."""

    prompt: str
    kind: str
    half: str
    words: tuple[str, ...]
    """Any of these names the kind."""

    def __post_init__(self) -> None:
        _check_texts(self)


def names(answer: str, text: str) -> bool:
    """Whether a text contains the answer as whole words, in upper or lower case."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def read_facts(path: str | Path) -> list[Fact]:
    """The facts of a JSON file, in its order. Raises QuestionsError."""
    content = read_object(Path(path), facts=list)
    return items_of(Path(path), content["facts"], lambda item: Fact(**item))


def read_entities(path: str | Path) -> list[Entity]:
    """The entities of a JSON file, in its order, each with the words for its kind. Raises QuestionsError."""
    content = read_object(Path(path), entities=list, kinds=dict)
    kinds = content["kinds"]
    return items_of(Path(path), content["entities"], lambda item: Entity(**item, words=tuple(kinds[item["kind"]])))


def of_half(items: Sequence[Item], half: str) -> list[Item]:
    """The entries of one half."""
    if half not in HALVES:
        raise ValueError(f"there is no half {half!r}; use one of {', '.join(HALVES)}")
    return [item for item in items if item.half == half]


def read_object(path: Path, **types: type) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise QuestionsError([str(getattr(error, "strerror", None) or error)], path) from error
    given = content if isinstance(content, dict) else {}
    problems = [
        f"{key!r} is missing or no {kind.__name__}"
        for key, kind in types.items()
        if not isinstance(given.get(key), kind)
    ]
    if problems:
        raise QuestionsError(problems, path)
    return content


def items_of(path: Path, given: Sequence[dict[str, Any]], make: Callable[[dict[str, Any]], Item]) -> list[Item]:
    items, problems = [], []
    for number, item in enumerate(given, start=1):
        try:
            items.append(make(item))
        except (TypeError, KeyError, ValueError) as error:
            problems.append(f"item {number}: {error}")
    if problems or not items:
        raise QuestionsError(problems or ["is empty"], path)
    return items


def _check_texts(item: Fact | Entity) -> None:
    for field in fields(item):
        value = getattr(item, field.name)
        texts = value if isinstance(value, tuple) else (value,)
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"{field.name} is {value!r}; it must be text")
    of_half([item], item.half)
