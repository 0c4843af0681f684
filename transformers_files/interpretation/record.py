"""One interpretation, with everything that is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .insert_layers import InsertLayer

COLUMNS = (
    "name",
    "category",
    "prompt",
    "prompt_output",
    "prompt_token_list",
    "layer_idx",
    "token_idx",
    "current token",
    "repeat_prompt",
    "repeat_prompt_name",
    "interpretation",
    "interpretation_text",
    "interpretation_weights",
    "interpretation_prob",
    "token_source",
    "insert_layer",
    "status",
    "answer",
)
"""The columns of the CSV, in order. A `Record` has a field of the same name for each ("current token":
`current_token`)."""

OK = "ok"


@dataclass(frozen=True)
class Record:
    """One hidden embedding, seen through one interpretation prompt."""

    name: str
    """The example's name."""
    category: str
    prompt: str
    """The text that the model saw."""
    prompt_output: str
    """The model's own continuation of the prompt, decoded."""
    prompt_token_list: tuple[str, ...]
    """Raw token strings of the prompt and of its generated output."""
    layer_idx: int | None
    """Which of the n_layers + 1 hidden states; None for vectors that come from no layer."""
    token_idx: int
    """Position in `prompt_token_list`; for vectors their index."""
    current_token: str
    """The raw token string at `token_idx`."""
    repeat_prompt: str
    """The interpretation prompt's text, placeholders included."""
    repeat_prompt_name: str
    interpretation: tuple[int, ...]
    """Token ids. Empty unless `status` is "ok", as are the weights and the probabilities."""
    interpretation_text: str
    interpretation_weights: tuple[float | None, ...]
    """Relevancy of each token: |probability with the embedding − probability without it|."""
    interpretation_prob: tuple[float | None, ...]
    """Probability of each token with the embedding."""
    token_source: str
    """"prompt", "output" (the model generated the token) or "vector"."""
    insert_layer: InsertLayer
    """Decoder layer, or layers, at whose input it went in; "same": `layer_idx`."""
    status: str = OK
    """"ok", or what went wrong."""
    answer: str | None = None
    interpretation_tokens: tuple[str, ...] = ()
    """What each token adds to `interpretation_text`: they join to it. Not a column of the CSV."""


def token_pieces(tokenizer: Any, token_ids: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds, so that the pieces join to the text of them all.

    Special tokens and tokens inside an unfinished character add "". A NUL, which no CSV reader takes, becomes U+FFFD.
    """
    pieces: list[str] = []
    text = ""
    for end in range(1, len(token_ids) + 1):
        # Without clean-up, which takes back spaces that earlier pieces already have.
        grown = tokenizer.decode(list(token_ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        grown = grown.replace("\0", "\ufffd")
        unfinished = end < len(token_ids) and grown.endswith("\ufffd")
        pieces.append("" if unfinished else grown[len(text) :])
        text = text if unfinished else grown
    return tuple(pieces)
