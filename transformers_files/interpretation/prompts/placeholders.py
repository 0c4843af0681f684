"""Where placeholders are in the token ids of a text.

A text with placeholders is given as the pieces between them. The ids are always those of the whole text: tokenizers
merge neighbours (`]_` may be one token), so the ids of a beginning need not be the beginning of the ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..models.chat_template import appended_tokens
from ..models.tokenizer import Tokenizer

MARKS = ("_", "x", "X", "?", "*", "0")
"""What can stand for a placeholder, in the order of trying."""


def locate(
    tokenizer: Tokenizer, pieces: Sequence[str], marks: Sequence[str], *, add_special_tokens: bool
) -> tuple[list[int], list[int], str] | None:
    """Tokenize `pieces` with a mark between each two, such that every mark is one token of its own.

    "Of its own" means that the token covers the mark, spaces before it, and nothing else.

    Returns:
        The token ids, the positions of the marks in them, and the mark that was used: the first of `marks` that works;
        None if none does.
    """
    search = _by_offsets if getattr(tokenizer, "is_fast", False) else _by_comparison
    for mark in dict.fromkeys(marks):
        located = search(tokenizer, pieces, mark, add_special_tokens)
        if located is not None:
            ids, locations = located
            return ids[: len(ids) - appended_tokens(tokenizer)] if add_special_tokens else ids, locations, mark
    return None


def _by_offsets(
    tokenizer: Tokenizer, pieces: Sequence[str], mark: str, add_special_tokens: bool
) -> tuple[list[int], list[int]] | None:
    """A fast tokenizer says which characters each token covers."""
    text = mark.join(pieces)
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    placeholder_at: dict[int, int] = {}  # character → number of the placeholder whose mark it belongs to
    end = 0
    for number, piece in enumerate(pieces[:-1]):
        begin = end + len(piece)
        end = begin + len(mark)
        placeholder_at.update(dict.fromkeys(range(begin, end), number))

    locations: dict[int, int] = {}
    for index, (begin, end) in enumerate(encoded["offset_mapping"]):
        covered = {placeholder_at[character] for character in range(begin, end) if character in placeholder_at}
        if not covered:
            continue
        if text[begin:end].lstrip(" ") != mark or covered & locations.keys():
            return None
        locations[covered.pop()] = index
    if len(locations) != len(pieces) - 1:
        return None
    return list(encoded["input_ids"]), [locations[number] for number in range(len(locations))]


def _by_comparison(
    tokenizer: Tokenizer, pieces: Sequence[str], mark: str, add_special_tokens: bool
) -> tuple[list[int], list[int]] | None:
    """With a slow tokenizer, the placeholders are where the ids differ when another mark is written."""
    ids = tokenizer.encode(mark.join(pieces), add_special_tokens=add_special_tokens)
    for other in MARKS:
        other_ids = tokenizer.encode(other.join(pieces), add_special_tokens=add_special_tokens)
        if len(ids) != len(other_ids):
            continue
        different = [index for index, (one, two) in enumerate(zip(ids, other_ids)) if one != two]
        if len(different) == len(pieces) - 1 and _all_are(tokenizer, ids, different, mark):
            return list(ids), different
    return None


def _all_are(tokenizer: Tokenizer, ids: Sequence[int], positions: Sequence[int], mark: str) -> bool:
    """Whether each of these tokens is the mark alone: a token `]_` differs from `]x` too."""
    texts = {ids[position]: tokenizer.decode([ids[position]]) for position in positions}
    return all(text.lstrip(" ") == mark for text in texts.values())
