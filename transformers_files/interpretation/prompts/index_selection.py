"""Which layers, which tokens: `all`, `last`, `0,5,10`, `0:30:5`, negative indices, and any of them joined by commas.

Of tokens also averages: `mean(2:5)`, `mean(all)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ALL = "all"
LAST = "last"
_MEAN = re.compile(r"mean\((.*)\)")
_INDEX = re.compile(r"[+-]?\d{1,12}", re.ASCII)


@dataclass(frozen=True)
class Selection:
    """Indices into a sequence whose length is not known yet, as Python understands indices and slices."""

    text: str
    """In the command line's syntax, without spaces."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", re.sub(r"\s", "", self.text))
        for part in self._parts():
            _parse(part)

    @classmethod
    def of(cls, choice: str | int | slice | Sequence[int | range] | None) -> Selection:
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

    def resolve(self, length: int) -> tuple[int, ...]:
        """The selected indices into a sequence of `length`, ascending, each once.

        Raises ValueError for an index out of range, for a mean, and when nothing is selected.
        """
        found: list[int] = []
        for position in self.positions(length):
            if isinstance(position, range):
                raise ValueError(f"{span_name(position)} is for tokens alone")
            found.append(position)
        return tuple(found)

    def positions(self, length: int) -> tuple[int | range, ...]:
        """The selected indices, ascending, then the ranges to average, in the order given; each once.

        Raises ValueError for an index out of range, and when nothing is selected or averaged.
        """
        return tuple(self.pairs(length, length))

    def pairs(self, length: int, other: int) -> dict[int | range, int | range]:
        """For each of the `positions` in a sequence of `length` the one in a sequence of length `other`.

        Raises ValueError as `positions` does, where a part selects more of one sequence than of the other, and where
        two parts give one position two partners.
        """
        found: dict[int | range, int | range] = {}
        for part in self._parts():
            ours, theirs = _select(part, length), _select(part, other)
            if len(ours) != len(theirs):
                raise ValueError(
                    f'"{part}" selects {len(ours)} of {length} tokens, of the other prompt {len(theirs)} of {other}; '
                    f"write {LAST}, indices that both have, or mean({part})"
                )
            for position, its in zip(ours, theirs):
                if found.setdefault(position, its) != its:
                    raise ValueError(
                        f"{_named(position)} is selected twice, to subtract {_named(found[position])} and "
                        f"{_named(its)} of the other prompt; ask for one at a time"
                    )
        if not found:
            raise ValueError(f'"{self.text}" selects none of {length}')
        ordered: list[int | range] = [*sorted(position for position in found if not isinstance(position, range))]
        ordered += [position for position in found if isinstance(position, range)]
        return {position: found[position] for position in ordered}

    def _parts(self) -> list[str]:
        return self.text.split(",")


def span_name(span: range) -> str:
    """How a mean over a range is written."""
    step = "" if span.step == 1 else f":{span.step}"
    return f"mean({span.start}:{span.stop}{step})"


def _named(position: int | range) -> str:
    return span_name(position) if isinstance(position, range) else f"token {position}"


def _select(part: str, length: int) -> list[int | range]:
    index, averaged = _parse(part)
    if not isinstance(index, slice):
        if not -length <= index < length:
            raise ValueError(f"{index} is out of range: there are {length} (0 to {length - 1}, or -1 to -{length})")
        return [index % length]
    span = range(length)[index]
    if not averaged:
        return list(span)
    if not span:
        raise ValueError(f'"{part}" averages none of {length}')
    return [span if span.step > 0 else span[::-1]]


def _parse(part: str) -> tuple[int | slice, bool]:
    """The index or slice, and whether it is averaged over."""
    mean = _MEAN.fullmatch(part)
    inner = mean[1] if mean else part
    if inner == ALL:
        return slice(None), mean is not None
    if inner == LAST and not mean:
        return -1, False
    bounds = inner.split(":")
    if len(bounds) > 3 or not all(_INDEX.fullmatch(bound) or (bound == "" and len(bounds) > 1) for bound in bounds):
        shown = part if len(part) <= 40 else part[:37] + "..."
        raise ValueError(
            f'"{shown}" is not an index: write {ALL}, {LAST}, 0,5,10, 0:30:5 or, of tokens, mean(2:5); '
            "negative counts from the end"
        )
    numbers = [int(bound) if bound else None for bound in bounds]
    if numbers[2:] == [0]:
        raise ValueError(f'"{part}" has step 0')
    if len(numbers) > 1:
        return slice(*numbers), mean is not None
    if mean:
        raise ValueError(f'"{part}" averages a single token: write a span, mean(2:5)')
    return int(inner), False
