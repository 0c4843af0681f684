"""Which layers, which tokens: `all`, `last`, `0,5,10`, `0:30:5`, negative indices, and any of them joined by commas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ALL = "all"
LAST = "last"
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
    def of(cls, choice: str | int | slice | Sequence[int] | None) -> Selection:
        """From what a user of Python writes: None, "0:30:5", 3, slice(0, 30, 5), [3, 4], range(5)."""
        if choice is None:
            return cls(ALL)
        if isinstance(choice, str):
            return cls(choice)
        if isinstance(choice, slice):
            return cls(":".join("" if part is None else str(part) for part in (choice.start, choice.stop, choice.step)))
        return cls(",".join(str(index) for index in ([choice] if hasattr(choice, "__index__") else choice)))

    @property
    def is_all(self) -> bool:
        return self.text == ALL

    def resolve(self, length: int) -> tuple[int, ...]:
        """The selected indices into a sequence of `length`, ascending, each once.

        Raises ValueError for an index out of range, and when nothing is selected.
        """
        everything = range(length)
        found: set[int] = set()
        for part in self._parts():
            index = _parse(part)
            if isinstance(index, slice):
                found.update(everything[index])
            elif -length <= index < length:
                found.add(everything[index])
            else:
                raise ValueError(f"{index} is out of range: there are {length} (0 to {length - 1}, or -1 to {-length})")
        if not found:
            raise ValueError(f'"{self.text}" selects none of {length}')
        return tuple(sorted(found))

    def _parts(self) -> list[str]:
        return self.text.split(",")


def _parse(part: str) -> int | slice:
    if part == ALL:
        return slice(None)
    if part == LAST:
        return -1
    bounds = part.split(":")
    if len(bounds) > 3 or not all(_INDEX.fullmatch(bound) or (bound == "" and len(bounds) > 1) for bound in bounds):
        shown = part if len(part) <= 40 else part[:37] + "..."
        raise ValueError(
            f'"{shown}" is not an index: write {ALL}, {LAST}, 0,5,10 or 0:30:5; negative counts from the end'
        )
    numbers = [int(bound) if bound else None for bound in bounds]
    if len(numbers) == 1:
        return numbers[0]
    if numbers[2:] == [0]:
        raise ValueError(f'"{part}" has step 0')
    return slice(*numbers)
