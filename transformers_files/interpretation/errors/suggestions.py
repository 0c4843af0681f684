"""The likely meaning of a misspelt word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 40  # the comparison takes time with the product of the lengths


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'layers'?)`, to go behind the word in a message; "" if nothing known is close to it."""
    short = [one for one in known if len(one) <= _LONGEST]
    close = difflib.get_close_matches(word, short, n=1) if len(word) <= _LONGEST else []
    return f" (did you mean {close[0]!r}?)" if close else ""
