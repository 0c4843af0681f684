"""What is to be said of which embedding, and the file that says so.

targets.json: `{"targets": [{"prompt": "The capital of Japan is", "layer": 24, "text": " Osaka"}, {"prompt": "You are",
"layer": 20, "token": -1, "pattern": "friendly|kind"}, {"prompt": "…", "layer": 20, "question": "Polite? {text}"}],
"references": ["The capital of Italy is", …], "held_out": ["Japan's capital is", …]}`. "references" are prompts whose
states are to stay as they are; "held_out" ones are shown before and after. Both may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors.problems import ProblemsError
from ..models.tokenizer import Tokenizer
from .rewards import Judged, Matching, Reward, check_question

_KEYS = {"prompt", "layer", "token", "raw", "text", "pattern", "question"}
_ASKED = ("text", "pattern", "question")


class TargetsError(ProblemsError):
    """A file of targets that cannot be used; each problem is a line that names it."""


@dataclass(frozen=True)
class Target:
    """The embedding of a token at a layer, and what its interpretation should be."""

    prompt: str
    layer: int
    """Of the n_layers + 1 hidden states, from 1 on: nothing changes what goes into the first layer."""
    wanted: str | Reward
    """The text of the interpretation, as the column `interpretation_text` has it; or what texts are worth."""
    token: int = -1
    raw: bool = True
    """True: the model reads the prompt as it is. False: the prompt becomes a user turn."""

    def __post_init__(self) -> None:
        if not self.prompt or self.wanted == "":
            raise ValueError(f"{self}: a prompt and a text need at least a letter")
        if self.layer < 1:
            raise ValueError(f"target {self.prompt!r}: layer {self.layer}; the first that can change is 1")


@dataclass(frozen=True)
class TargetsFile:
    """A file of targets, read and checked; no model is needed."""

    entries: tuple[Mapping[str, Any], ...]
    references: tuple[str, ...]
    held_out: tuple[str, ...]

    def targets(self, model: nn.Module, tokenizer: Tokenizer) -> list[Target]:
        """model: the judge of those that have a question. Raises ValueError."""
        return [self._target(entry, model, tokenizer) for entry in self.entries]

    def _target(self, entry: Mapping[str, Any], model: nn.Module, tokenizer: Tokenizer) -> Target:
        wanted: str | Reward = entry.get("text", "")
        if "pattern" in entry:
            wanted = Matching(entry["pattern"])
        if "question" in entry:
            wanted = Judged(entry["question"], model, tokenizer)
        return Target(entry["prompt"], entry["layer"], wanted, entry.get("token", -1), entry.get("raw", True))


def read_targets(path: str | Path) -> TargetsFile:
    """Raises TargetsError with every problem of the file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TargetsError([f"targets {path}: {getattr(error, 'strerror', None) or error}"]) from error
    if not isinstance(content, dict) or not isinstance(content.get("targets"), list) or not content["targets"]:
        raise TargetsError([f'targets {path}: found no list "targets" with an entry, expected {{"targets": [{{…}}]}}'])
    problems = [
        f"targets {path}, target {n}: {why}" for n, entry in enumerate(content["targets"]) for why in _wrong(entry)
    ]
    for name in ("references", "held_out"):
        given = content.get(name, [])
        if not isinstance(given, list) or not all(isinstance(text, str) and text for text in given):
            problems.append(f"targets {path}: {name} must be a list of texts")
    if unknown := content.keys() - {"targets", "references", "held_out"}:
        problems.append(f"targets {path}: unknown keys {', '.join(sorted(unknown))}")
    if problems:
        raise TargetsError(problems)
    return TargetsFile(
        tuple(content["targets"]), tuple(content.get("references", [])), tuple(content.get("held_out", []))
    )


def _wrong(entry: Any) -> Sequence[str]:
    """What is wrong with an entry of the file."""
    if not isinstance(entry, dict):
        return [f"found a {type(entry).__name__}, expected an object"]
    found = []
    if unknown := entry.keys() - _KEYS:
        found.append(f"unknown keys {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}")
    kinds = {"prompt": str, "text": str, "pattern": str, "question": str, "layer": int, "token": int, "raw": bool}
    for key, kind in kinds.items():
        if key in entry and type(entry[key]) is not kind:
            found.append(f"{key} is {entry[key]!r}, expected a {kind.__name__}")
    if missing := {"prompt", "layer"} - entry.keys():
        found.append(f"without {', '.join(sorted(missing))}")
    asked = [key for key in _ASKED if key in entry]
    if len(asked) != 1:
        found.append(f"needs one of {', '.join(_ASKED)}, has {', '.join(asked) or 'none'}")
    if found:
        return found
    try:
        Target(entry["prompt"], entry["layer"], entry.get("text", "any"))
        if "pattern" in entry:
            Matching(entry["pattern"])
        if "question" in entry:
            check_question(entry["question"])
    except ValueError as error:
        return [str(error)]
    return []
