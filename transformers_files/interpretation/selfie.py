"""The functions of the package `selfie` (https://github.com/tonychenxyz/selfie), over this package's engine.

    from transformers.interpretation.selfie import InterpretationPrompt, interpret   # was: selfie.interpret

    prompt = InterpretationPrompt(tokenizer, ("[INST]", 0, 0, 0, 0, 0, "[/INST] Sure, I will summarize the message:"))
    table = interpret(original_prompt="…", tokenizer=tokenizer, interpretation_prompt=prompt, model=model,
                      tokens_to_interpret=[(10, 5), (10, 6)], bs=8, max_new_tokens=30, k=1)

Kept as they are there, also where the rest of this package does otherwise:

- a placeholder is the text "_ ", and its places are found by the length of what is encoded up to it: the token of the
  space belongs to them, or the one that the space has merged with (`prompts` has exactly one token per placeholder);
- prompts are encoded as they are, with the tokenizer's special tokens and without a chat template;
- a layer is an index into `hidden_states` (0 the embeddings, n_layers after the final norm), `k` the decoder layer at
  whose input the embedding overwrites what was there, in the pass over the interpretation prompt alone;
- `interpret` returns a dict of lists, `interpret_vectors` a list of texts.

What differs: every model of `families` works; decoding is by argmax whatever the model's generation config says (there
a config that samples loses the insertion); a `k` that the model does not have is an error, not an interpretation
without an embedding; and `interpret_vectors` inserts at the `k` that it is given (there always at layer 1, the default
here).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .engine.cell import Cell
from .engine.decode import interpret_chunk
from .engine.settings import InterpretationSettings
from .models.activations import capture
from .models.chat_template import appended_tokens
from .models.token_text import text_of
from .models.tokenizer import Tokenizer
from .prompts import interpretation_prompt as prompts
from .runs.limits import Limits
from .runs.planning import build_prompts

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


def interpret(
    original_prompt: str,
    tokenizer: Tokenizer,
    interpretation_prompt: InterpretationPrompt,
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
        `prompt`, `interpretation`, `layer`, `token`, `token_decoded`, each with one entry per pair, in their order.

    Raises:
        ValueError: a layer, token or `k` that is out of range, or an interpretation prompt without placeholders.
    """
    pairs = list(tokens_to_interpret)
    input_ids = _encoded(tokenizer, original_prompt)["input_ids"]
    layers, tokens = (sorted({pair[which] for pair in pairs}) for which in (0, 1))
    states = capture(model, input_ids, layers, tokens) if layers else torch.empty(0)
    vectors = [states[layers.index(layer), tokens.index(token)] for layer, token in pairs]
    return {
        "prompt": [original_prompt] * len(vectors),
        "interpretation": interpret_vectors(
            vectors, model, interpretation_prompt, tokenizer, bs, k, max_new_tokens, guidance
        ),
        "layer": [layer for layer, _ in pairs],
        "token": [token for _, token in pairs],
        "token_decoded": [tokenizer.decode([int(input_ids[0, token])]) for _, token in pairs],
    }


def interpret_vectors(
    vecs: Iterable[torch.Tensor],
    model: nn.Module,
    interpretation_prompt: InterpretationPrompt,
    tokenizer: Tokenizer,
    bs: int = 8,
    k: int = 1,
    max_new_tokens: int = 30,
    guidance: float = 0.0,
) -> list[str]:
    """Interpret any vectors `[hidden]` (dimensions of size 1 in front are dropped); other arguments as for `interpret`.

    Not in `selfie`: one vector for each of the prompt's `insert_locations`, `[locations, hidden]`.

    Returns one text per vector; an empty one, with a warning, for a vector that has or leads to NaN or infinity.
    """
    settings = InterpretationSettings(insert_layer=k, max_new_tokens=max_new_tokens, guidance=guidance)
    (prompt,) = build_prompts(tokenizer, [interpretation_prompt.located()], Limits.of(model), settings)
    hidden = model.get_input_embeddings().weight.shape[-1]
    rows = [vector.reshape(-1, hidden) for vector in vecs]
    cells = [Cell(row[0] if len(row) == 1 else row, prompt) for row in rows]
    interpretations = interpret_chunk(model, cells, settings, batch_size=bs)
    for number, interpretation in enumerate(interpretations):
        if interpretation.status != "ok":
            warnings.warn(f"vector {number} has no interpretation: {interpretation.status}", stacklevel=2)
    return [text_of(tokenizer, said.token_ids) for said in interpretations]


def _encoded(tokenizer: Tokenizer, text: str) -> Any:
    """What the tokenizer makes of the text, `[1, sequence]` each, without an end of sequence that it appends."""
    encoded = tokenizer(text, return_tensors="pt")
    end = encoded["input_ids"].shape[1] - appended_tokens(tokenizer)
    for name, values in encoded.items():
        encoded[name] = values[:, :end]
    return encoded
