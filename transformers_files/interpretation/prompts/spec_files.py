"""Interpretation prompts by name, or from JSON files.

find_spec("describe")
find_spec("mine.json")      # an object with the fields of InterpretationPromptSpec as keys
"""

from __future__ import annotations

import json
from pathlib import Path

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

    problems = []
    for key, value in content.items():
        if key not in _FIELD_TYPES:
            problems.append(f"unknown key {shortened(key)}{did_you_mean(key, _FIELD_TYPES)}")
        elif not isinstance(value, _FIELD_TYPES[key]):
            problems.append(f"{key} is {shortened(value)}, it must be {_JSON_NAMES[_FIELD_TYPES[key]]}")
    if isinstance(content.get("sequence"), list):
        content["sequence"] = tuple(content["sequence"])
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    try:
        return InterpretationPromptSpec(**{"name": path.stem, **content})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
