"""Interpretation prompts by name, or from JSON files.

find_spec("describe")
find_spec("mine.json")      # an object with the fields of InterpretationPromptSpec as keys
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors.suggestions import did_you_mean
from .interpretation_prompt import BUILT_IN, InterpretationPromptSpec, shortened


def find_spec(name_or_path: str | Path) -> InterpretationPromptSpec:
    """A built-in interpretation prompt by its name, or one in a JSON file by its path.

    Raises:
        ValueError: neither, or everything that is wrong with the file.
    """
    if name_or_path in BUILT_IN:
        return BUILT_IN[str(name_or_path)]
    path = Path(name_or_path)
    if path.suffix == ".json" or _is_file(path):
        return _read_spec(path)
    known = ", ".join(BUILT_IN)
    raise ValueError(
        f"unknown interpretation prompt {shortened(str(name_or_path))}{did_you_mean(str(name_or_path), BUILT_IN)}; "
        f"built in: {known}; or give the path of a .json file"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a file name can be, or with characters that none can have
        return False


_FIELD_TYPES = {
    **dict.fromkeys(("name", "text", "placeholder", "reply", "stop"), str),
    **dict.fromkeys(("chat", "repeated"), bool),
    "sequence": list,
}
_JSON_NAMES = {str: "a text", list: "a list", bool: "true or false"}


def _read_spec(path: Path) -> InterpretationPromptSpec:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read the interpretation prompt {shortened(str(path))}: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: an interpretation prompt is an object with the keys {', '.join(_FIELD_TYPES)}")
    return spec_of(content, str(path), path.stem)


def spec_of(content: Mapping[str, Any], where: str, name: str) -> InterpretationPromptSpec:
    """The spec with these fields, as a JSON file has them.

    where: for messages. name: of a prompt that has none.

    Raises ValueError: everything that is wrong with them.
    """
    content, problems = dict(content), []
    for key, value in content.items():
        if key not in _FIELD_TYPES:
            problems.append(f"unknown key {shortened(key)}{did_you_mean(key, _FIELD_TYPES)}")
        elif not isinstance(value, _FIELD_TYPES[key]):
            problems.append(f"{key} is {shortened(value)}, it must be {_JSON_NAMES[_FIELD_TYPES[key]]}")
    if isinstance(content.get("sequence"), list):
        content["sequence"] = tuple(content["sequence"])
    if problems:
        raise ValueError(f"{where}: {'; '.join(problems)}")
    try:
        return InterpretationPromptSpec(**{"name": name, **content})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def fields_of(spec: InterpretationPromptSpec) -> dict[str, Any]:
    """What a JSON file of a spec has: `spec_of` makes it again. Of a prompt that a question was put into, the question
    is not among them."""
    standard = {field.name: field.default for field in fields(InterpretationPromptSpec)}
    given = {name: getattr(spec, name) for name in _FIELD_TYPES}
    return {name: value for name, value in given.items() if value != standard[name]}
