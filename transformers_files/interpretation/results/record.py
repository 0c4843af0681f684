"""One interpretation, with everything that is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..models.families import RESIDUAL
from ..models.layer_spec import InsertLayer
from ..prompts.interpretation_prompt import InterpretationPrompt
from .calibration import BUILT_IN_CALIBRATION

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
_SEPARATOR = ", "
MINUS = " − "
"""Between what a difference is made of."""


@dataclass(frozen=True)
class Record:
    """One hidden embedding, seen through one interpretation prompt."""

    name: str
    """The example's name."""
    category: str
    prompt: str
    """The text that the model saw; of a difference both, with a minus sign on a line of its own between them."""
    prompt_output: str
    """The model's own continuation of the prompt, decoded."""
    prompt_token_list: tuple[str, ...]
    """Raw token strings of the prompt and of its generated output; then the names of the means, "mean(2:5)"."""
    layer_idx: int | None
    """Which of the n_layers + 1 hidden states, or of another place the decoder layer; None for vectors that come from
    no layer."""
    token_idx: int
    """Position in `prompt_token_list`; for vectors their index."""
    current_token: str
    """What `prompt_token_list` has at `token_idx`; of a difference also what was subtracted, and its position in the
    other prompt: "Ġis − Ġwas[6]"."""
    repeat_prompt: str
    """The interpretation prompt's text, placeholders included."""
    repeat_prompt_name: str
    interpretation: tuple[int, ...]
    """Token ids, with the one that ended it: end of sequence, or the one with the interpretation prompt's stop in it.
    Empty unless `status` is "ok", as are the weights and the probabilities."""
    interpretation_text: str
    """Their text, without the prompt's stop and what may follow it."""
    interpretation_weights: tuple[float | None, ...]
    """Relevancy of each token: |probability with the embedding − probability without it|."""
    interpretation_prob: tuple[float | None, ...]
    """Probability of each token with the embedding."""
    token_source: str
    """"prompt", "output" (the model generated the token), "mean" (over tokens of the prompt), "difference" (of two
    prompts) or "vector"; then the place, if it is not the residual stream: "prompt, mlp_output"."""
    insert_layer: InsertLayer
    """Decoder layer, or layers, at whose input it went in; "same": `layer_idx`."""
    status: str = OK
    """"ok", or what went wrong."""
    answer: str | None = None
    interpretation_tokens: tuple[str, ...] = ()
    """What each token adds to `interpretation_text`: they join to it. Not a column of the CSV."""

    @property
    def trust(self) -> float | None:
        """Of interpretations of such relevancy, how many were right where answers are known; see `trust`. None where
        `status` is not "ok"."""
        return BUILT_IN_CALIBRATION.trust(self.interpretation_weights)

    @property
    def kind(self) -> str:
        """The first part of `token_source`."""
        return self.token_source.partition(_SEPARATOR)[0]

    @property
    def place(self) -> str:
        """Where in a layer it was read; one of `families.HOOK_POINTS`, or "" for a vector."""
        if self.kind == "vector":
            return ""
        return self.token_source.partition(_SEPARATOR)[2] or RESIDUAL


def token_source(kind: str, place: str) -> str:
    """The two of them as a record has them."""
    return kind if place == RESIDUAL else f"{kind}{_SEPARATOR}{place}"


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


def interpretation_pieces(tokenizer: Any, prompt: InterpretationPrompt, token_ids: Sequence[int]) -> tuple[str, ...]:
    """What each token of an interpretation adds to its text, which ends before the prompt's stop."""
    pieces = token_pieces(tokenizer, token_ids)
    return pieces if prompt.stop is None else shortened(pieces, prompt.stop.cut("".join(pieces)))


def shortened(pieces: Sequence[str], text: str) -> tuple[str, ...]:
    """As many pieces, cut so that they join to `text`, with which their whole text begins."""
    cut, left = [], len(text)
    for piece in pieces:
        cut.append(piece[:left])
        left -= len(cut[-1])
    return tuple(cut)


def with_token_texts(records: Iterable[Record], tokenizer: Any) -> list[Record]:
    """The same records with `interpretation_tokens` filled in from their token ids."""
    return [
        replace(
            record,
            interpretation_tokens=shortened(token_pieces(tokenizer, record.interpretation), record.interpretation_text),
        )
        for record in records
    ]
