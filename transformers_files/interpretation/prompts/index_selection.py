"""Which layers, which tokens: `all`, `last`, `0,5,10`, `0:30:5`, negative indices, and any of them joined by commas.

For tokens also averages: `mean(2:5)`, `mean(all)`; and segments, whose tokens have a placeholder each: `segment(2:6)`.
For layers also the names of `models.layer_names`: `resid_post.10`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..models.layer_names import named_layer

ALL = "all"
LAST = "last"
_SPAN = re.compile(r"(mean|segment)\((.*)\)")
_INDEX = re.compile(r"[+-]?\d{1,12}", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """Ascending positions that are one thing together: an embedding of each."""

    positions: range

    def __len__(self) -> int:
        return len(self.positions)

    def __str__(self) -> str:
        return f"segment({_bounds(self.positions)})"


Position = int | range | Segment
"""A token, a span to be averaged, or a segment."""


@dataclass(frozen=True)
class Selection:
    """Indices into a sequence whose length is not known yet, as Python understands indices and slices."""

    text: str
    """In the command line's syntax, without spaces."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", re.sub(r"\s", "", self.text))
        for part in self._parts():
            if named_layer(part) is None:
                _parse(part)

    @classmethod
    def of(cls, choice: str | int | slice | Sequence[int | range | str] | None) -> Selection:
        """From what a user of Python writes: None, "0:30:5", 3, slice(0, 30, 5), [3, 4], range(5).

        A range inside a list is the mean over it: [3, range(2, 5)] is "3,mean(2:5)".
        """
        if choice is None:
            return cls(ALL)
        if isinstance(choice, str):
            return cls(choice)
        if isinstance(choice, slice):
            return cls(":".join("" if part is None else str(part) for part in (choice.start, choice.stop, choice.step)))
        parts = [choice] if hasattr(choice, "__index__") else choice
        return cls(",".join(span_name(part) if isinstance(part, range) else str(part) for part in parts))

    @property
    def is_all(self) -> bool:
        return self.text == ALL

    @property
    def has_names(self) -> bool:
        """Whether a layer is given by its name."""
        return any(named_layer(part) for part in self._parts())

    def resolve(self, length: int, *, ends_after_norm: bool = True) -> tuple[int, ...]:
        """The selected layers of so many, ascending, each once.

        ends_after_norm: whether the last of them is the hidden state after the final norm.

        Raises ValueError for an index out of range, for a mean, and when nothing is selected.
        """
        found: list[int] = []
        parts = []
        for part in self._parts():
            named = named_layer(part)
            if named is not None and ends_after_norm:
                named.check(length - 1)
            parts.append(part if named is None else str(named.index))
        for position in Selection(",".join(parts)).positions(length):
            if not isinstance(position, int):
                raise ValueError(f"{span_name(position)} is for tokens alone")
            found.append(position)
        return tuple(found)

    def positions(self, length: int) -> tuple[Position, ...]:
        """The selected indices, ascending, then the ranges to average and the segments, in the order given; each once.

        Raises ValueError for an index out of range, and when nothing is selected or averaged.
        """
        return tuple(self.pairs(length, length))

    def pairs(self, length: int, other: int) -> dict[Position, Position]:
        """For each of the `positions` in a sequence of `length` the one in a sequence of length `other`.

        Raises ValueError as `positions` does, where a part selects more of one sequence than of the other, and where
        two parts give one position two partners.
        """
        found: dict[Position, Position] = {}
        for part in self._parts():
            if named_layer(part):
                raise ValueError(f'"{part}" is the name of a layer; tokens are given by indices')
            ours, theirs = _select(part, length), _select(part, other)
            if len(ours) != len(theirs):
                raise ValueError(
                    f'"{part}" selects {len(ours)} of {length} tokens, of the other prompt {len(theirs)} of {other}; '
                    f"write {LAST}, indices that both have, or mean({part})"
                )
            for position, its in zip(ours, theirs):
                if isinstance(position, Segment) and isinstance(its, Segment) and len(position) != len(its):
                    raise ValueError(
                        f'"{part}" has {len(position)} tokens of the one prompt and {len(its)} of the other; write '
                        "bounds that select as many of both, such as segment(-3:)"
                    )
                if found.setdefault(position, its) != its:
                    raise ValueError(
                        f"{_named(position)} is selected twice, to subtract {_named(found[position])} and "
                        f"{_named(its)} of the other prompt; ask for one at a time"
                    )
        if not found:
            raise ValueError(f'"{self.text}" selects none of {length}')
        ordered: list[Position] = [*sorted(position for position in found if isinstance(position, int))]
        ordered += [position for position in found if not isinstance(position, int)]
        return {position: found[position] for position in ordered}

    def _parts(self) -> list[str]:
        return self.text.split(",")


def span_name(span: range | Segment) -> str:
    """How a mean over a range is written, or a segment."""
    return str(span) if isinstance(span, Segment) else f"mean({_bounds(span)})"


def _bounds(span: range) -> str:
    step = "" if span.step == 1 else f":{span.step}"
    return f"{span.start}:{span.stop}{step}"


def _named(position: Position) -> str:
    return f"token {position}" if isinstance(position, int) else span_name(position)


def _select(part: str, length: int) -> list[Position]:
    index, together = _parse(part)
    if not isinstance(index, slice):
        if not -length <= index < length:
            raise ValueError(f"{index} is out of range: there are {length} (0 to {length - 1}, or -1 to -{length})")
        return [index % length]
    span = range(length)[index]
    if together is None:
        return list(span)
    if not span:
        raise ValueError(f'"{part}" {"averages" if together == "mean" else "has"} none of {length}')
    if together == "segment":
        return [Segment(span)]
    return [span if span.step > 0 else span[::-1]]


def _parse(part: str) -> tuple[int | slice, str | None]:
    """The index or slice, and what it is together: "mean", "segment" or None."""
    spanned = _SPAN.fullmatch(part)
    together, inner = (spanned[1], spanned[2]) if spanned else (None, part)
    if inner == ALL:
        return slice(None), together
    if inner == LAST and not together:
        return -1, None
    bounds = inner.split(":")
    if len(bounds) > 3 or not all(_INDEX.fullmatch(bound) or (bound == "" and len(bounds) > 1) for bound in bounds):
        shown = part if len(part) <= 40 else part[:37] + "..."
        raise ValueError(
            f'"{shown}" is not an index: write {ALL}, {LAST}, 0,5,10, 0:30:5 or, of tokens, mean(2:5), segment(2:5); '
            "negative counts from the end"
        )
    numbers = [int(bound) if bound else None for bound in bounds]
    if numbers[2:] == [0]:
        raise ValueError(f'"{part}" has step 0')
    if together == "segment" and len(numbers) == 3 and (numbers[2] or 1) < 0:
        raise ValueError(f'"{part}" runs backwards: the tokens of a segment are in their order')
    if len(numbers) > 1:
        return slice(*numbers), together
    if together == "mean":
        raise ValueError(f'"{part}" averages a single token: write a span, mean(2:5)')
    if together:
        raise ValueError(f'"{part}" is a single token: write a span, segment(2:5)')
    return int(inner), None
