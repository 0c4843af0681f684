"""Where an interpretation ends before its maximum length: at the prompt's stop text, or in a loop.

    stop = Stop("\\n", tokenizer)
    stop.reached_by(token_ids)      # "stop", "loop" or None
    stop.cut(" Tokyo: a city in Japan\\nSyria")          # " Tokyo: a city in Japan"

After the line break of a few-shot list the model invents the next entry; after a third repetition comes a fourth.
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
PUNCTUATION_REPETITIONS = 4
"""Of a piece of punctuation alone: three dots are an ellipsis, also where each is a token."""
_HALF_A_CHARACTER = "\ufffd"
"""What tokens decode to that are bytes of a character."""


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
        """Whether the last tokens are the same ones several times over, and neither a number (1000) nor white space."""
        for length in range(1, len(token_ids) // REPETITIONS + 1):
            last = list(token_ids[-length:])
            if list(token_ids[-length * REPETITIONS :]) == last * REPETITIONS:
                needed = self._repetitions(last)
                if needed is not None and list(token_ids[-length * needed :]) == last * needed:
                    return True
        return False

    def _repetitions(self, token_ids: Sequence[int]) -> int | None:
        """How many times running these tokens are a loop; None: never."""
        piece = self._decode(token_ids)
        if any(map(str.isalpha, piece)):
            return REPETITIONS
        is_punctuation = piece.strip() and not any(map(str.isalnum, piece)) and _HALF_A_CHARACTER not in piece
        return PUNCTUATION_REPETITIONS if is_punctuation else None

    def _decode(self, token_ids: Sequence[int]) -> str:
        return text_of(self.tokenizer, token_ids, clean_up_tokenization_spaces=False)
