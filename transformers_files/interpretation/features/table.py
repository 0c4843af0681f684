"""Scores and contexts as files, and back: what programs after another pass on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .label_scores import LabelScore


class FeaturesError(ValueError):
    """A file of contexts or scores that cannot be read; the message is one line that names it."""


@dataclass(frozen=True)
class ShownContext:
    """A context as text."""

    activation: float
    pieces: tuple[str, ...]
    """What each token adds."""
    at: int


def write_contexts(path: Path, features: Iterable[tuple[int, Sequence[ShownContext]]]) -> None:
    """JSON lines: `{"index", "contexts": [{"activation", "pieces", "at"}]}`."""
    with path.open("w", encoding="utf-8") as file:
        for index, contexts in features:
            shown = [{"activation": round(one.activation, 4), "pieces": one.pieces, "at": one.at} for one in contexts]
            file.write(json.dumps({"index": index, "contexts": shown}, ensure_ascii=False) + "\n")


def read_contexts(path: Path) -> dict[int, tuple[ShownContext, ...]]:
    """By the feature's index. Raises FeaturesError."""
    found: dict[int, tuple[ShownContext, ...]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                content = json.loads(line)
                found[int(content["index"])] = tuple(map(_context, content["contexts"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FeaturesError(f"contexts {path}: {getattr(error, 'strerror', None) or error!r}") from error
    return found


def _context(content: Mapping[str, Any]) -> ShownContext:
    pieces, at = tuple(map(str, content["pieces"])), int(content["at"])
    if not 0 <= at < len(pieces):
        raise ValueError(f"token {at} of {len(pieces)} is said to activate")
    return ShownContext(float(content["activation"]), pieces, at)


def write_scores(path: Path, scores: Iterable[LabelScore]) -> None:
    """CSV, a row for each feature, shares of pairs; empty where there are none."""
    names = [one.name for one in fields(LabelScore)]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*names, "score"))
        for one in scores:
            rows.writerow([_cell(getattr(one, name)) for name in names] + [_cell(one.score)])


def read_scores(path: Path) -> list[LabelScore]:
    """Raises FeaturesError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_score(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FeaturesError(f"scores {path}: {getattr(error, 'strerror', None) or error!r}") from error


def _score(row: Mapping[str, str]) -> LabelScore:
    shares = {
        one.name: float(row[one.name]) if row[one.name] else None
        for one in fields(LabelScore)
        if one.name not in ("index", "label")
    }
    return LabelScore(int(row["index"]), row["label"], **shares)


def _cell(value: object) -> object:
    return "" if value is None else round(value, 4) if isinstance(value, float) else value
