"""The names of tokens and the text that they form, including ids that the tokenizer lacks.

    token_strings(tokenizer, [464, 3139, 49155])        # ("The", "Ġcapital", "<id 49155>")
    token_pieces(tokenizer, [464, 3139, 49155])         # ("The", " capital", "<id 49155>")

Many vocabularies are padded beyond their tokenizer, so that a model can generate an id that means nothing. Tokenizers
answer with None, with an IndexError, or with nothing at all; here such an id has a name that one can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .tokenizer import Tokenizer


def token_strings(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, ...]:
    """The raw string of each token."""
    missing = lacking(tokenizer, token_ids)
    known = [token for token in token_ids if token not in missing]
    strings = iter(tokenizer.convert_ids_to_tokens(known))
    return tuple(_name(token) if token in missing else next(strings) for token in token_ids)


def token_pieces(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds, so that the pieces join to the text of them all.

    Special tokens and tokens inside an unfinished character add "". A NUL, which no CSV reader takes, becomes U+FFFD.
    """
    missing = lacking(tokenizer, token_ids)
    last = len([token for token in token_ids if token not in missing])
    pieces: list[str] = []
    known: list[int] = []
    text = ""
    for token in token_ids:
        if token in missing:
            pieces.append(_name(token))
            continue
        known.append(token)
        # Without clean-up, which takes back spaces that earlier pieces already have.
        grown = tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        grown = grown.replace("\0", "\ufffd")
        unfinished = len(known) < last and grown.endswith("\ufffd")
        pieces.append("" if unfinished else grown[len(text) :])
        text = text if unfinished else grown
    return tuple(pieces)


def text_of(tokenizer: Tokenizer, token_ids: Sequence[int], **options: Any) -> str:
    """The text of the tokens, without special ones. options: of `tokenizer.decode`, where no id is lacking."""
    if lacking(tokenizer, token_ids):
        return "".join(token_pieces(tokenizer, token_ids))
    return tokenizer.decode(list(token_ids), skip_special_tokens=True, **options)


def lacking(tokenizer: Tokenizer, token_ids: Sequence[int]) -> frozenset[int]:
    """Those of the ids that stand for no token of the tokenizer."""
    size = len(tokenizer)
    return frozenset(token for token in set(token_ids) if _is_lacking(tokenizer, token, size))


def _is_lacking(tokenizer: Tokenizer, token: int, size: int) -> bool:
    """Slow sentencepiece raises for an id that it lacks, a fast tokenizer says None, ByT5 makes a character of it."""
    try:
        string = tokenizer.convert_ids_to_tokens(token)
    except (IndexError, KeyError, ValueError, OverflowError):
        return True
    if not isinstance(string, str):
        return True
    return token >= size and token not in tokenizer.get_vocab().values()


def _name(token: int) -> str:
    return f"<id {token}>"
