"""Where an interpretation ends before it is as long as it may be: at a text that belongs to its prompt, or in a loop.

    stop = Stop("\\n", tokenizer)
    stop.reached_by(token_ids)      # "stop", "loop" or None
    stop.cut(" Tokyo: a city in Japan\\nSyria")          # " Tokyo: a city in Japan"

What follows the line break of a few-shot list is the next entry, invented; what follows a third repetition is a fourth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer

LENGTH, END_OF_SEQUENCE, STOP, LOOP = "length", "end of sequence", "stop", "loop"
"""What can end an interpretation."""
REPETITIONS = 3
"""So many times running the same piece of text is a loop."""


@dataclass(frozen=True)
class Stop:
    """The text at which interpretations of a prompt end, and the tokenizer that makes text of their tokens."""

    text: str
    tokenizer: Tokenizer = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("the stop is empty")

    def reached_by(self, token_ids: Sequence[int]) -> str | None:
        """Whether the last token ends the interpretation: STOP if its text, after leading white space, has the stop;
        LOOP if its last tokens say the same thing for the third time."""
        if self.text in self._decode(token_ids).lstrip():
            return STOP
        return LOOP if self._loops(token_ids) else None

    def cut(self, text: str) -> str:
        """The text up to the stop, if it is reached."""
        start = len(text) - len(text.lstrip())
        end = text.find(self.text, start)
        return text if end < 0 else text[:end]

    def _loops(self, token_ids: Sequence[int]) -> bool:
        """Whether the last tokens are the same ones three times over, with a letter in them: 1000 is a number."""
        for length in range(1, len(token_ids) // REPETITIONS + 1):
            last = token_ids[-length:]
            blocks = [token_ids[-length * number : len(token_ids) - length * (number - 1)] for number in (2, 3)]
            if all(list(block) == list(last) for block in blocks) and any(map(str.isalpha, self._decode(last))):
                return True
        return False

    def _decode(self, token_ids: Sequence[int]) -> str:
        return text_of(self.tokenizer, token_ids, clean_up_tokenization_spaces=False)
