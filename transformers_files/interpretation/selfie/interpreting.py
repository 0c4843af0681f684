"""Interpretations of hidden embeddings and of vectors, as the package `selfie` gives them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..engine.cell import Cell, Interpretation
from ..engine.decode import interpret_chunk
from ..engine.settings import InterpretationSettings
from ..models.activations import capture
from ..models.chat_template import appended_tokens
from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer
from ..prompts import interpretation_prompt as prompts
from ..runs.limits import Limits
from ..runs.planning import build_prompts

_PLACEHOLDER = "_ "


class InterpretationPrompt:
    """Pieces of text and placeholders; whatever is not text is one placeholder."""

    def __init__(self, tokenizer: Tokenizer, interpretation_prompt_sequence: Iterable[Any]) -> None:
        self.tokenizer = tokenizer
        self.interpretation_prompt = ""
        """The text, with "_ " for each placeholder."""
        self.insert_locations: list[int] = []
        """Positions in its tokens that are overwritten."""
        behind = appended_tokens(tokenizer)
        for part in interpretation_prompt_sequence:
            if isinstance(part, str):
                self.interpretation_prompt += part
                continue
            start = len(tokenizer.encode(self.interpretation_prompt)) - behind
            self.interpretation_prompt += _PLACEHOLDER
            self.insert_locations += range(start, len(tokenizer.encode(self.interpretation_prompt)) - behind)
        self.interpretation_prompt_model_inputs = _encoded(tokenizer, self.interpretation_prompt)

    def located(self) -> prompts.InterpretationPrompt:
        """The same for the engine. Raises ValueError where no placeholder has a token."""
        ids = self.interpretation_prompt_model_inputs["input_ids"][0].tolist()
        # Text that merges with a placeholder's space can make later ranges begin where earlier ones have not ended.
        locations = tuple(sorted(set(self.insert_locations)))
        return prompts.InterpretationPrompt("selfie", tuple(ids), locations, self.interpretation_prompt)


AnyPrompt = InterpretationPrompt | prompts.InterpretationPrompt


def interpret(
    original_prompt: str,
    tokenizer: Tokenizer,
    interpretation_prompt: AnyPrompt,
    model: nn.Module,
    tokens_to_interpret: Iterable[tuple[int, int]],
    bs: int = 8,
    max_new_tokens: int = 30,
    k: int = 1,
    guidance: float = 0.0,
) -> dict[str, list]:
    """Interpret hidden embeddings of a prompt.

    Args:
        tokens_to_interpret: (layer, token) pairs; layers index `hidden_states`, negative ones count from the end.
        bs: how many are interpreted at once.
        max_new_tokens: the longest interpretation.
        k: the decoder layer at whose input an embedding is inserted.
        guidance: not in `selfie`: see `engine.settings.InterpretationSettings`; 0 is its raw argmax.

    Returns:
        `prompt`, `interpretation`, `layer`, `token`, `token_decoded`, `relevancy_score`, each with one entry per pair,
        in their order. A score is a list with one number per generated token, the one that ended the text included:
        how much the embedding changed the token's probability.

    Raises:
        ValueError: a layer, token or `k` that is out of range, or an interpretation prompt without placeholders.
    """
    pairs = list(tokens_to_interpret)
    input_ids = _encoded(tokenizer, original_prompt)["input_ids"]
    layers, tokens = (sorted({pair[which] for pair in pairs}) for which in (0, 1))
    states = capture(model, input_ids, layers, tokens) if layers else torch.empty(0)
    vectors = [states[layers.index(layer), tokens.index(token)] for layer, token in pairs]
    said = _interpretations(vectors, model, interpretation_prompt, tokenizer, bs, k, max_new_tokens, guidance)
    return {
        "prompt": [original_prompt] * len(vectors),
        "interpretation": [text_of(tokenizer, one.token_ids) for one in said],
        "layer": [layer for layer, _ in pairs],
        "token": [token for _, token in pairs],
        "token_decoded": [tokenizer.decode([int(input_ids[0, token])]) for _, token in pairs],
        "relevancy_score": [list(one.relevancy) for one in said],
    }


def interpret_vectors(
    vecs: Iterable[torch.Tensor],
    model: nn.Module,
    interpretation_prompt: AnyPrompt,
    tokenizer: Tokenizer,
    bs: int = 8,
    k: int = 2,
    max_new_tokens: int = 30,
    guidance: float = 0.0,
    insert_layer: int = 1,
) -> list[str]:
    """Interpret any vectors `[hidden]` (dimensions of size 1 in front are dropped); other arguments as for `interpret`.

    Args:
        k: has no effect, as in `selfie`, which inserts vectors at layer 1 whatever it is.
        insert_layer: not in `selfie`: the decoder layer at whose input they are inserted.

    Not in `selfie`: one vector for each of the prompt's `insert_locations`, `[locations, hidden]`.

    Returns one text per vector; an empty one, with a warning, for a vector that has or leads to NaN or infinity.
    """
    said = _interpretations(vecs, model, interpretation_prompt, tokenizer, bs, insert_layer, max_new_tokens, guidance)
    return [text_of(tokenizer, one.token_ids) for one in said]


def _interpretations(
    vectors: Iterable[torch.Tensor],
    model: nn.Module,
    interpretation_prompt: AnyPrompt,
    tokenizer: Tokenizer,
    batch_size: int,
    insert_layer: int,
    max_new_tokens: int,
    guidance: float,
) -> list[Interpretation]:
    settings = InterpretationSettings(insert_layer=insert_layer, max_new_tokens=max_new_tokens, guidance=guidance)
    given = interpretation_prompt
    located = given.located() if isinstance(given, InterpretationPrompt) else given
    (prompt,) = build_prompts(tokenizer, [located], Limits.of(model), settings)
    hidden = model.get_input_embeddings().weight.shape[-1]
    rows = [vector.reshape(-1, hidden) for vector in vectors]
    cells = [Cell(row[0] if len(row) == 1 else row, prompt) for row in rows]
    interpretations = interpret_chunk(model, cells, settings, batch_size=batch_size)
    for number, interpretation in enumerate(interpretations):
        if interpretation.status != "ok":
            warnings.warn(f"vector {number} has no interpretation: {interpretation.status}", stacklevel=3)
    return interpretations


def _encoded(tokenizer: Tokenizer, text: str) -> Any:
    """What the tokenizer makes of the text, `[1, sequence]` each, without an end of sequence that it appends."""
    encoded = tokenizer(text, return_tensors="pt")
    end = encoded["input_ids"].shape[1] - appended_tokens(tokenizer)
    for name, values in encoded.items():
        encoded[name] = values[:, :end]
    return encoded
