"""The protocol of a tokenizer: slow and fast ones of `transformers` satisfy it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text → token ids, and back."""

    is_fast: bool
    """Whether it knows where in the text each token comes from."""
    chat_template: Any
    """A template, several by name, or None; slow tokenizers of old versions may lack it."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Token ids and what else is asked for, by name."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Token ids."""

    def decode(self, token_ids: Any, **options: Any) -> str:
        """The text of token ids."""

    def __len__(self) -> int:
        """Its tokens, added ones included."""

    def get_vocab(self) -> dict[str, int]:
        """The raw string of each token, and its id."""

    def convert_ids_to_tokens(self, ids: Any, **options: Any) -> Any:
        """The raw string of each token id."""

    def apply_chat_template(self, conversation: Sequence[dict[str, Any]], **options: Any) -> Any:
        """A conversation as the text, or the token ids, that the model was trained on."""
