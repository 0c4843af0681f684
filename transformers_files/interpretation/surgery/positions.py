"""Where an embedding goes in: positions as `insert_info` gives them → columns of the prompt, or all that follow it."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from torch import Tensor

GENERATED: Final = "generated"
"""The position of every token that is generated after the prompt."""
Position = int | Literal["generated"]


@dataclass(frozen=True)
class Prompt:
    """What positions are checked against."""

    length: int
    """columns of the prompt, those already in the cache included"""
    cached: int
    """columns already in the cache"""
    mask: Tensor | None
    """[batch, columns], on the CPU: False where the attention mask hides a column; aligned to the right"""

    generates: bool
    """whether tokens are generated after it"""

    def column(self, row: int, position: Position) -> int:
        """The absolute column of a position, of generated tokens the first; raises `ValueError` with the reason where
        nothing can be inserted."""
        if position == GENERATED:
            if not self.generates:
                raise ValueError("a single pass generates nothing; give the positions of the tokens that it is given")
            return self.length
        column = position + self.length if position < 0 else position
        if not 0 <= column < self.length:
            raise ValueError(
                f"outside the prompt of {self.length} tokens; give 0 to {self.length - 1}, or -{self.length} to -1 "
                "counted from its end"
            )
        if column < self.cached:
            raise ValueError(
                f"already in the key/value cache, which holds {self.cached} tokens; insert where the cache is made, or "
                "at a later position"
            )
        if self.mask is not None:
            seen = column - max(0, self.length - self.mask.shape[1])
            if seen >= 0 and not self.mask[row, seen]:
                raise ValueError(
                    "masked by the attention mask (padding); left padding counts, so add its width to the position, "
                    "or count from the prompt's end"
                )
        return column

    def columns(self, row: int, positions: Sequence[Position]) -> list[int]:
        """The absolute columns of several positions; raises `ValueError` that names the one that cannot be."""
        columns: dict[int, None] = {}
        for position in positions:
            try:
                column = self.column(row, position)
                if column in columns:
                    raise ValueError("given twice; give each position once")
            except ValueError as error:
                raise ValueError(f"position {position}: {error}") from None
            columns[column] = None
        return list(columns)


def positions_of(locations: Any, length: int) -> list[Position]:
    """The insert locations as integers and "generated", whatever sequence they come in.

    A slice, alone or among others, selects columns of the prompt of `length` tokens, as it does in a list of them.
    """
    if isinstance(locations, Tensor):
        locations = locations.tolist()
    if isinstance(locations, slice) or _is_generated(locations):
        locations = [locations]
    positions: list[Position] = []
    try:
        for location in locations:
            if isinstance(location, slice):
                positions += _selected(location, length)
            else:
                positions.append(GENERATED if _is_generated(location) else operator.index(location))
    except TypeError:
        raise ValueError(
            f'the insert locations must be a list of integers or slices, or "{GENERATED}", not '
            f"{reprlib.repr(locations)}"
        ) from None
    return positions


def _selected(location: slice, length: int) -> range:
    columns = range(length)[location]
    if not columns:
        raise ValueError(f"{location} selects none of the prompt's {length} tokens")
    return columns


def _is_generated(location: Any) -> bool:
    return isinstance(location, str) and location == GENERATED
