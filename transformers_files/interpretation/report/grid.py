"""Records in the shape that every view draws: per example and interpretation prompt, one grid of layers × tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..models.places import RESIDUAL
from ..results.record import MINUS, Record
from ..results.samples import Agreement, agreement
from .strings import inert, one_line, readable_tokens, visible

_Place = tuple[int | None, int]
_Key = tuple[str, str, str, str]
"""Name of the interpretation prompt with its question, its text, insert layer, hook point."""


@dataclass(frozen=True)
class Column:
    """One token position of the source text."""

    token_idx: int
    text: str
    """The token with spaces and newlines made visible."""
    source: str
    """`Record.kind`"""


@dataclass(frozen=True)
class PromptGrid:
    """What one interpretation prompt, inserted at one layer, says about an example's embeddings of one hook point."""

    label: str
    prompt: str
    inserted_at: str
    """`Record.inserted_at`"""
    records: dict[_Place, Record]
    """(layer_idx, token_idx) → the record of that cell, of samples the most frequent. Cells that were not computed are
    absent."""
    agreements: Mapping[_Place, Agreement]
    """How far the samples agree, for cells that have samples."""


@dataclass(frozen=True)
class ExampleGrid:
    """One source prompt with everything that was read out of it."""

    name: str
    category: str
    prompt: str
    prompt_output: str
    answer: str | None
    columns: tuple[Column, ...]
    layers: tuple[int | None, ...]
    """From the last layer down to the first, as the grid is drawn; (None,) for vectors that come from no layer."""
    readings: tuple[PromptGrid, ...]


def examples_of(records: Sequence[Record]) -> tuple[ExampleGrid, ...]:
    """The examples in the order of their first records. Of a cell or sample that is there twice, the last counts."""
    return tuple(_example(group) for group in by_example(records).values())


def by_example(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """The records of each example, by its name and prompt, in the order of their first ones."""
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        grouped.setdefault((record.name, record.prompt), []).append(record)
    return grouped


def find_example(examples: Sequence[ExampleGrid], name: str | None) -> ExampleGrid:
    """The example of that name, the first where none is given. Raises ValueError with the names that there are."""
    if not examples:
        raise ValueError("there are no interpretations to show")
    for example in examples:
        if name in (None, example.name):
            return example
    raise ValueError(f"no example {name!r}; there are: {', '.join(example.name for example in examples)}")


def mean_relevancy(record: Record) -> float | None:
    """Mean of |probability with − without the embedding| over an interpretation's tokens; None where there are none."""
    return _mean(record.interpretation_weights)


def names_answer(record: Record) -> bool:
    """Whether the interpretation contains the example's answer as whole words, in upper or lower case."""
    if not record.answer or not record.has_interpretation:
        return False
    pattern = rf"(?<!\w){re.escape(record.answer)}(?!\w)"
    return re.search(pattern, record.interpretation_text, re.IGNORECASE) is not None


def relevancy_scale(records: Sequence[Record]) -> float:
    """The relevancy that gets the strongest colour: the largest mean of all cells, rounded up to a tenth, at most 1."""
    means = [mean for record in records if (mean := mean_relevancy(record)) is not None]
    return min(1.0, max(1, math.ceil(max(means, default=1.0) * 10 - 1e-9)) / 10)


def _mean(numbers: Sequence[float | None] | None) -> float | None:
    finite = [number for number in numbers or () if number is not None and math.isfinite(number)]
    return fmean(finite) if finite else None


def _example(records: list[Record]) -> ExampleGrid:
    first = records[0]
    readings: dict[_Key, dict[_Place, dict[int | None, Record]]] = {}
    for record in records:
        name = record.repeat_prompt_name
        if record.question is not None:
            name += f" · {one_line(record.question)}"
        key = (name, record.repeat_prompt, record.inserted_at, record.place)
        cells = readings.setdefault(key, {})
        cells.setdefault((record.layer_idx, record.token_idx), {})[record.sample] = record
    return ExampleGrid(
        name=first.name,
        category=first.category,
        prompt=first.prompt,
        prompt_output=first.prompt_output,
        answer=first.answer,
        columns=_columns(records),
        layers=tuple(sorted({record.layer_idx for record in records}, key=_height, reverse=True)),
        readings=tuple(_reading(_label(key, list(readings)), key, cells) for key, cells in readings.items()),
    )


def _reading(label: str, key: _Key, cells: Mapping[_Place, Mapping[int | None, Record]]) -> PromptGrid:
    """cells: (layer, token) → sample number, or None without sampling → its record."""
    agreements = {cell: agreement(list(found.values())) for cell, found in cells.items() if None not in found}
    records = {cell: agreements[cell].record if cell in agreements else found[None] for cell, found in cells.items()}
    return PromptGrid(label, key[1], key[2], records, agreements)


def _height(layer: int | None) -> int:
    return -1 if layer is None else layer


def columns_of(tokens: Sequence[tuple[int, str, str]], alphabet: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of (token_idx, current_token, kind), in this order.

    alphabet: more raw tokens of the same vocabulary; its alphabet shows in a whole text better than in a few tokens.
    """
    parts = [part for _, token, kind in tokens for part in _parts(token, kind)]
    known = [*parts, *alphabet]
    readable = dict(zip(known, readable_tokens(known)))
    return tuple(Column(index, _column_text(token, kind, readable), kind) for index, token, kind in tokens)


def _columns(records: list[Record]) -> tuple[Column, ...]:
    tokens = {record.token_idx: (record.token_idx, record.current_token, record.kind) for record in records}
    return columns_of([tokens[index] for index in sorted(tokens)], records[0].prompt_token_list or ())


def _column_text(token: str, kind: str, readable: Mapping[str, str]) -> str:
    if kind == "vector":
        return inert(token)
    return MINUS.join(visible(readable[part]) for part in _parts(token, kind))


def _parts(token: str, kind: str) -> list[str]:
    """The tokens that `current_token` names."""
    return token.split(MINUS) if kind == "difference" else [token]


def _label(key: _Key, keys: list[_Key]) -> str:
    """The prompt's name and the hook point, with the insert layer where that would not tell two readings apart."""
    name, _, inserted_at, hook_point = key
    label = name if hook_point in ("", RESIDUAL) else f"{name} · {hook_point.replace('_', ' ')}"
    alike = [other for other in keys if (other[0], other[3]) == (name, hook_point)]
    return label if len(alike) == 1 else f"{label} · {inserted_at} · {alike.index(key) + 1}"
