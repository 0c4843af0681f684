"""How many cells an engine call takes, and how many of them each client gets."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.batch_size import MOST_AT_ONCE

LEAST_TOKENS, FIRST_TOKENS = 120, 480
"""Generated in an engine call: four cells of thirty tokens, sixteen."""
SHORT, LONG = 0.5, 1.2
"""Seconds. A call that took less could have been larger; one that took more keeps clients waiting, and those that have
gone away go on costing."""


class Pace:
    """The size of engine calls: what the machine computes in about a second, by what the last ones took."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS

    def cells(self, max_new_tokens: int) -> int:
        """Of the next call."""
        return min(MOST_AT_ONCE, max(1, self._tokens // max_new_tokens))

    def note(self, cells: int, max_new_tokens: int, seconds: float) -> None:
        """Learn from a call. One that was not filled tells nothing by being short."""
        if seconds > LONG:
            self._tokens = max(LEAST_TOKENS, self._tokens // 2)
        elif seconds < SHORT and cells >= self.cells(max_new_tokens):
            self._tokens = min(2 * self._tokens, MOST_AT_ONCE * max(max_new_tokens, FIRST_TOKENS))


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """What each gets of the room: nobody more than is wanted, nobody less than a neighbour unless nothing more is.

    Where there are more of them than room, the first get one each.
    """
    dealt = [0] * len(wanted)
    while room:
        open_ones = [index for index, most in enumerate(wanted) if dealt[index] < most]
        if not open_ones:
            break
        each = max(1, room // len(open_ones))
        for index in open_ones[:room]:
            more = min(each, wanted[index] - dealt[index])
            dealt[index] += more
            room -= more
    return dealt
