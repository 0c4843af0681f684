"""Next-token precision@1 and surprisal of the identity prompt, as in Patchscopes (Ghandeharioun et al. 2024, 4.1).

The state of a token goes into the last position of a prompt that repeats words, and the model says its next token:
is it the one that the model itself gives after the source text (precision@1), and how unlikely is that one (surprisal,
-log p, in nats)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..cache import empty_cache
from ..chat import encode_prompt
from ..engine import InterpretationSettings
from ..families import decoder_layers
from ..logits import input_device, next_logits
from ..mapping import AnyMap, map_vectors
from ..prompts import InterpretationPrompt, InterpretationPromptSpec
from ..surgery import plan_surgery, surgery
from .interpreter import last_token_states
from .statistics import Estimate, estimate

IDENTITY = InterpretationPromptSpec("identity", text="cat -> cat\n1135 -> 1135\nhello -> hello\n _")
"""The few-shot prompt of Patchscopes; what follows the placeholder is what the vector calls for."""


@dataclass(frozen=True)
class NextToken:
    """How well one layer gives the model's own next token."""

    precision: Estimate
    """Share of texts where the best token is the same."""
    surprisal: Estimate
    """-log probability of the model's own best token, in nats."""


def next_token_shares(
    model: nn.Module,
    tokenizer: Any,
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
    expected = torch.tensor([_next_token(model, encode_prompt(tokenizer, text, raw=True)) for text in texts])
    found = {}
    for column, layer in enumerate(layers):
        vectors = map_vectors(mapping, states[:, column], layer, states.shape[-1])
        batches = vectors.split(batch_size)
        logits = torch.cat([_surgered_logits(model, prompt, batch, settings) for batch in batches])
        surprisal = -logits.log_softmax(-1).gather(1, expected[:, None])[:, 0]
        hits = (logits.argmax(-1) == expected).tolist()
        found[layer] = NextToken(estimate(hits), estimate(surprisal.tolist()))
    return found


@torch.no_grad()
def _next_token(model: nn.Module, input_ids: Sequence[int]) -> int:
    ids = torch.tensor([list(input_ids)], device=input_device(model))
    return int(next_logits(model, ids, empty_cache(model))[0].argmax())


@torch.no_grad()
def _surgered_logits(
    model: nn.Module, prompt: InterpretationPrompt, vectors: torch.Tensor, settings: InterpretationSettings
) -> torch.Tensor:
    """float32 logits after the prompt, `[n, vocabulary]` on the CPU, with a vector of `[n, hidden]` in each row."""
    locations = list(prompt.insert_locations)
    options = {"overlay_strength": settings.overlay_strength, "replacing_mode": settings.replacing_mode}
    info = [{settings.insert_layer: (locations, vector.expand(1, len(locations), -1)), **options} for vector in vectors]
    plan = plan_surgery(
        info,
        n_layers=len(decoder_layers(model)),
        hidden_size=vectors.shape[-1],
        batch_size=len(vectors),
        prompt_length=len(prompt.input_ids),
        cached_length=0,
    )
    ids = torch.tensor([list(prompt.input_ids)] * len(vectors), device=input_device(model))
    with surgery(model, plan):
        return next_logits(model, ids, empty_cache(model))[0].float().cpu()
