"""How tokens and texts of unknown origin are shown: spaces and newlines visible, nothing that steers a screen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """The text with lone surrogates, which no encoding can write, as U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def inert(text: str) -> str:
    """The text with every character named that would steer a terminal or turn the reading direction (newlines stay)."""
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char
        for char in encodable(text)
    )


def visible(text: str) -> str:
    """One line in which every character can be seen: " is\\n" becomes "␣is⏎"."""
    return one_line(text).replace(" ", "␣")


def one_line(text: str) -> str:
    """The text in one line that steers nothing, its spaces left as they are."""
    return inert("".join(_VISIBLE.get(char, char) for char in text))


def excerpt(text: str, length: int) -> str:
    """One line of at most `length` characters. The end is kept, because chat templates put the same words in front."""
    line = " ".join(encodable(text).split())
    return line if len(line) <= length else "…" + line[len(line) - length + 1 :]


def readable_tokens(tokens: Sequence[str]) -> list[str]:
    """Raw vocabulary strings of one text ("Ġcapital", "▁capital", "<0x0A>") as the text that they stand for.

    Which alphabet a vocabulary uses is recognised from all the tokens together: "Ġ" alone could be a letter. A token
    that is no whole character, or of an unknown alphabet, stays as it is.
    """
    if any("Ġ" in token or "Ċ" in token for token in tokens):
        return [_from_byte_letters(token) for token in tokens]
    return [_BYTE_TOKEN.sub(_from_byte_token, token).replace("▁", " ") for token in tokens]


def _byte_letters() -> dict[str, int]:
    """The printable letter that byte-level vocabularies write for each byte (GPT-2's table), letter → byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_LETTERS = _byte_letters()


def _from_byte_letters(token: str) -> str:
    try:
        return bytes(_LETTERS[letter] for letter in token).decode()
    except (KeyError, UnicodeDecodeError):
        return token


def _from_byte_token(match: re.Match[str]) -> str:
    byte = int(match[1], 16)
    return chr(byte) if byte < 0x80 else match[0]
