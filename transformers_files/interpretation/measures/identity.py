"""Next-token precision@1 and surprisal of the identity prompt, as in Patchscopes (Ghandeharioun et al. 2024, 4.1).

The state of a token goes into the last position of a prompt that repeats words, and the model says its next token:
is it the one that the model itself gives after the source text (precision@1), and how unlikely is that one (surprisal,
-log p, in nats)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..engine.cell import Cell
from ..engine.insertion import read_shared_part, read_under_surgery
from ..engine.settings import InterpretationSettings
from ..mapping.affine import AnyMap, map_vectors
from ..models.chat_template import encode_prompt
from ..models.forward import input_device, next_logits
from ..models.kv_cache import empty_cache
from ..models.layer_spec import SAME
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .interpreter import last_token_states
from .statistics import Estimate, estimate

IDENTITY = InterpretationPromptSpec("identity", text="cat -> cat\n1135 -> 1135\nhello -> hello\n _")
"""The few-shot prompt of Patchscopes; what follows the placeholder is what the model makes of the vector."""


@dataclass(frozen=True)
class NextToken:
    """How well one layer gives the model's own next token."""

    precision: Estimate
    """Share of texts where the best token is the same."""
    surprisal: Estimate
    """−log probability that the state, inserted, gives to the model's own best token, in nats."""
    patchscopes_surprisal: Estimate
    """−log probability that the model itself gives to the best token of the inserted state, in nats (Ghandeharioun and
    others 2024, arXiv:2401.06102, section 4.1)."""


@torch.no_grad()
def next_token_shares(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    layers: Sequence[int],
    settings: InterpretationSettings,
    *,
    batch_size: int,
    mapping: AnyMap = None,
) -> dict[int, NextToken]:
    """Layer → how well the states of the texts' last tokens give the token that the model puts next.

    texts: raw. settings: where and how the states go in; the number of new tokens does not count.
    """
    prompt = IDENTITY.build(tokenizer)
    states = last_token_states(model, tokenizer, texts, layers)
    shared = read_shared_part(model, prompt)
    own = torch.cat([_next_log_shares(model, encode_prompt(tokenizer, text, raw=True)) for text in texts])
    expected = own.argmax(-1)
    found = {}
    for column, layer in enumerate(layers):
        vectors = map_vectors(mapping, states[:, column], layer, states.shape[-1])
        insert_layer = layer if settings.insert_layer == SAME else settings.insert_layer
        cells = [Cell(vector.to(model.dtype), prompt, insert_layer) for vector in vectors]
        batches = [cells[start : start + batch_size] for start in range(0, len(cells), batch_size)]
        read = [read_under_surgery(model, prompt, batch, settings, shared)[0] for batch in batches]
        logits = torch.cat(read).float().cpu()
        surprisal = -logits.log_softmax(-1).gather(1, expected[:, None])[:, 0]
        best = logits.argmax(-1)
        theirs = -own.gather(1, best[:, None])[:, 0]
        found[layer] = NextToken(
            estimate((best == expected).tolist()), estimate(surprisal.tolist()), estimate(theirs.tolist())
        )
    return found


@torch.no_grad()
def _next_log_shares(model: nn.Module, input_ids: Sequence[int]) -> torch.Tensor:
    """Logarithms of the probabilities of the next token, `[1, vocabulary]`, float32 on the CPU."""
    ids = torch.tensor([list(input_ids)], device=input_device(model))
    return next_logits(model, ids, empty_cache(model))[0].float().log_softmax(-1).cpu()
