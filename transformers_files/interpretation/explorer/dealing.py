"""How many cells an engine call takes, and how many of them each client gets."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.batch_size import MOST_AT_ONCE

LEAST_TOKENS, FIRST_TOKENS = 120, 480
"""Generated in an engine call: four cells of thirty tokens, sixteen."""
SHORT, LONG = 0.5, 1.2
"""Seconds. A call that took less could have been larger; one that took more keeps clients waiting, and those that have
gone away go on costing."""
WORTH_IT = 1.5
"""A call twice as large that makes so many times the tokens per second is preferred, however long it takes: where
reading the weights is what takes time, small calls would cost nearly as much as large ones."""


class Pace:
    """The size of engine calls: what the machine computes in about a second, by what the last ones took."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._speeds: dict[int, float] = {}
        """Size of a call → tokens per second of the last one of this size."""

    def cells(self, max_new_tokens: int) -> int:
        """Of the next call."""
        return min(MOST_AT_ONCE, max(1, self._tokens // max_new_tokens))

    def note(self, cells: int, max_new_tokens: int, seconds: float) -> None:
        """Learn from a call. One that was not filled tells nothing by being short."""
        if cells < self.cells(max_new_tokens):
            return
        speed = self._speeds[self._tokens] = self._tokens / max(seconds, 1e-6)
        smaller, larger = max(LEAST_TOKENS, self._tokens // 2), 2 * self._tokens
        of_smaller, of_larger = self._speeds.get(smaller, speed), self._speeds.get(larger, speed)
        if speed > WORTH_IT * of_smaller or of_larger > WORTH_IT * speed or seconds < SHORT:
            self._tokens = min(larger, MOST_AT_ONCE * max(max_new_tokens, FIRST_TOKENS))
        elif seconds > LONG:
            self._tokens = smaller


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
