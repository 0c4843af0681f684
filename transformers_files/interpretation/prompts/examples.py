"""The JSON file of prompts, read and checked.

    {"examples": [{"prompt": "The capital of Italy is", "category": "fact", "raw": true, "answer": "Rome"}, ...]}

`prompt` is required. `category` (default "example") groups examples and gives them their names; `raw` (default false)
says that the prompt is fed to the model as it is, not as a user turn; `answer` (optional) is what the prompt does not
say; `minus` (optional) is another prompt, whose hidden embeddings are subtracted from this one's. Everything wrong with
a file is reported at once, each problem with its place. Keys that mean nothing are warned about, once per example.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors.problems import ProblemsError
from ..errors.suggestions import did_you_mean

DEFAULT_CATEGORY = "example"
STANDARD_INPUT = "-"
_KEYS = ("prompt", "category", "raw", "answer", "minus")
_SHOWN_PROBLEMS = 50
_SHOWN_LENGTH = 40
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ExamplesError(ProblemsError):
    """A file of examples that cannot be used."""


class ExamplesWarning(UserWarning):
    """Something in a file of examples that is probably a mistake, but stops nobody."""


@dataclass(frozen=True)
class Example:
    """One prompt whose hidden embeddings are interpreted."""

    name: str
    """`category_idx`, idx counted from 1 in the order of the file."""
    prompt: str
    category: str = DEFAULT_CATEGORY
    raw: bool = False
    """True: the model sees the prompt as it is. False: the prompt becomes a user turn."""
    answer: str | None = None
    """What the prompt does not say and the model may be thinking of."""
    minus: str | None = None
    """Another prompt, `raw` as this one is: differences are interpreted, this prompt's embeddings minus that one's."""

    def __post_init__(self) -> None:
        for field, text in (("prompt", self.prompt), ("minus", self.minus or ""), ("answer", self.answer or "")):
            if not isinstance(text, str):
                raise ValueError(f"{field} must be text, found {_kind(text)}")
            if found := _SURROGATE.search(text):
                raise ValueError(f"{field} has {_named(found)}, which is not text")
        if not isinstance(self.raw, bool):
            raise ValueError(f"raw must be true or false, found {_kind(self.raw)}")


@dataclass(frozen=True)
class ExamplesFile:
    """The examples of a file, and which bytes they are of."""

    examples: tuple[Example, ...]
    """In the order of the file."""
    digest: str
    """Of the bytes that were parsed: a pipe gives them once."""

    @classmethod
    def read(cls, path: str | Path) -> ExamplesFile:
        """From a file or a pipe; "-" is standard input.

        Raises ExamplesError with every problem of the file; warns (ExamplesWarning) of unknown keys.
        """
        data = _read_bytes(path)
        return cls(tuple(_parse(path, data)), hashlib.sha256(data).hexdigest()[:16])

    def numbered_by_category(self) -> ExamplesFile:
        """The same examples with other names: each category is counted by itself, from its shortest prompt on.

        So names them the program that this one comes after, whose tables can then be joined by name. Of prompts of one
        length the first in the file comes first.
        """
        counts: Counter[str] = Counter()
        names: dict[str, str] = {}
        for example in sorted(self.examples, key=lambda example: len(example.prompt)):
            counts[example.category] += 1
            names[example.name] = f"{example.category}_{counts[example.category]}"
        renamed = tuple(replace(example, name=names[example.name]) for example in self.examples)
        digest = hashlib.sha256(f"{self.digest}, numbered by category".encode())
        return ExamplesFile(renamed, digest.hexdigest()[:16])


def read_examples(path: str | Path) -> list[Example]:
    """The examples of a JSON file, in its order; "-" is standard input.

    Raises ExamplesError with every problem of the file; warns (ExamplesWarning) of unknown keys.
    """
    return list(ExamplesFile.read(path).examples)


def _parse(path: str | Path, data: bytes) -> list[Example]:
    document = _load_json(path, data)
    problems: list[str] = []
    notes: list[str] = []
    examples = list(_examples(document, problems, notes))
    if problems:
        hidden = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS] + ([f"and {hidden} more problems"] if hidden > 0 else [])
        raise ExamplesError(shown, path)
    for note in notes:
        warnings.warn(f"{path}: {note}", ExamplesWarning, stacklevel=2)
    return examples


class _Object(dict):
    """A JSON object that remembers which of its keys were given twice."""

    twice: tuple[str, ...] = ()

    @classmethod
    def from_pairs(cls, pairs: list[tuple[str, Any]]) -> _Object:
        found = cls(pairs)
        if len(found) < len(pairs):
            found.twice = tuple(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return found


def _read_bytes(path: str | Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == STANDARD_INPUT else Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise ExamplesError([f"cannot read the examples: {reason}"], path) from None


def _load_json(path: str | Path, data: bytes) -> Any:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ExamplesError([f"line {line}: byte {error.start} is not UTF-8"], path) from None
    try:
        return json.loads(text, object_pairs_hook=_Object.from_pairs)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ExamplesError([f"{place}: not valid JSON: {error.msg}"], path) from None
    except RecursionError:
        raise ExamplesError(["not valid JSON: nested too deeply"], path) from None
    except ValueError as error:  # an integer with more digits than Python converts
        raise ExamplesError([f"not valid JSON: {error}"], path) from None


def _examples(document: Any, problems: list[str], notes: list[str]) -> Iterator[Example]:
    if not isinstance(document, _Object):
        problems.append(f'expected an object {{"examples": [...]}}, found {_kind(document)}')
        return
    problems.extend(f'key "{_shown(key)}" is given twice' for key in document.twice)
    entries = document.get("examples")
    if "examples" not in document:
        problems.append(f'no "examples"{did_you_mean("examples", list(document))}')
    elif not isinstance(entries, list):
        problems.append(f'"examples" must be a list, found {_kind(entries)}')
    elif not entries:
        problems.append('"examples" is empty')
    else:
        for number, entry in enumerate(entries, start=1):
            example = _example(number, entry, problems, notes)
            if example is not None:
                yield example
    notes.extend(f'unknown key "{_shown(key)}" is ignored' for key in document if key != "examples")


def _example(number: int, entry: Any, problems: list[str], notes: list[str]) -> Example | None:
    place = f"example {number}"
    if not isinstance(entry, _Object):
        problems.append(f"{place}: expected an object, found {_kind(entry)}")
        return None
    before = len(problems)
    problems.extend(f'{place}: key "{_shown(key)}" is given twice' for key in entry.twice)
    if "prompt" not in entry:
        problems.append(f'{place}: no "prompt"{did_you_mean("prompt", [key for key in entry if key not in _KEYS])}')
    for key in ("prompt", "category", "answer", "minus"):
        if key in entry and not (key in ("answer", "minus") and entry[key] is None):
            problems.extend(f'{place}: "{key}" {problem}' for problem in _text_problems(entry[key]))
    if not isinstance(entry.get("raw", False), bool):
        problems.append(f'{place}: "raw" must be true or false, found {_kind(entry["raw"])}')
    if len(problems) > before:
        return None
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        listed = ", ".join(f'"{_shown(key)}"{did_you_mean(key, _KEYS)}' for key in unknown)
        notes.append(f"{place}: unknown keys are ignored: {listed}")
    category = entry.get("category", DEFAULT_CATEGORY)
    return Example(
        name=f"{category}_{number}",
        prompt=entry["prompt"],
        category=category,
        raw=entry.get("raw", False),
        answer=entry.get("answer"),
        minus=entry.get("minus"),
    )


def _text_problems(value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"must be text, found {_kind(value)}"
    elif not value.strip():
        yield "is empty"
    elif found := _NOT_TEXT.search(value):
        yield f"has {_named(found)}, which is not text"


def _named(found: re.Match[str]) -> str:
    what = "NUL" if found[0] == "\0" else "half of a surrogate pair"
    return f"U+{ord(found[0]):04X} ({what}) at character {found.start() + 1}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    for kind, name in names.items():
        if isinstance(value, kind):
            return name
    return "a number"


def _shown(key: str) -> str:
    short = key if len(key) <= _SHOWN_LENGTH else key[: _SHOWN_LENGTH - 3] + "..."
    return short if short.isprintable() else short.encode("unicode_escape").decode("ascii")
