"""What answer recovery is compared with: the logit lens and fitted ones, and the model that finishes its own pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..engine.settings import InterpretationSettings
from ..mapping.affine import VectorMap
from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import head_out, read_out
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .interpreter import Interpreter, last_token_states
from .questions import Fact, names
from .statistics import Estimate, estimate

LENS_BEST = (1, 10)
"""The answer counts as read by the lens if its first token is among the best tokens of this number."""
BARE = InterpretationPromptSpec("bare", text="Here is the next thing _")
ROWS = 256
"""Rows of logits in memory at once."""


def lens_shares(
    model: nn.Module,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    layers: Sequence[int],
    maps: Mapping[int, VectorMap] | None = None,
) -> dict[int, dict[int, Estimate]]:
    """Layer → k → share of facts whose answer's first token is among the k best of a lens; see `answer_ranks`."""
    ranks = answer_ranks(model, tokenizer, facts, layers, maps)
    return {layer: shares_among_best(of_layer) for layer, of_layer in ranks.items()}


def answer_ranks(
    model: nn.Module,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    layers: Sequence[int],
    maps: Mapping[int, VectorMap] | None = None,
) -> dict[int, torch.Tensor]:
    """Layer → how many tokens a lens puts before the first one of each fact's answer, `[facts]`.

    maps: the lens by source layer, as `mapping.lenses` fits it; layers that it has nothing for are left out. None: the
    logit lens, at all layers.
    """
    layers = [layer for layer in layers if maps is None or layer in maps]
    if not layers:
        return {}
    states = last_token_states(model, tokenizer, [fact.prompt for fact in facts], layers)
    tokens = torch.tensor([first_answer_token(tokenizer, fact) for fact in facts])
    return {
        layer: lens_ranks(model, states[:, column], layer, tokens, None if maps is None else maps[layer])
        for column, layer in enumerate(layers)
    }


def shares_among_best(*ranks: torch.Tensor) -> dict[int, Estimate]:
    """k → share of the facts that are among the k best; of several layers' ranks `[facts]`, at any of them."""
    best = torch.stack(ranks).amin(0)
    return {most: estimate((best < most).tolist()) for most in LENS_BEST}


def first_answer_token(tokenizer: Tokenizer, fact: Fact) -> int:
    """The token with which the answer begins where it follows the prompt."""
    before = encode_prompt(tokenizer, fact.prompt, raw=True)
    return encode_prompt(tokenizer, f"{fact.prompt} {fact.answer}", raw=True)[len(before)]


@torch.no_grad()
def lens_ranks(
    model: nn.Module, states: torch.Tensor, layer: int, tokens: torch.Tensor, lens: VectorMap | None = None
) -> torch.Tensor:
    """How many tokens a lens puts before the given ones.

    Args:
        states: `[n, hidden]` of one layer.
        layer: index into the n_layers + 1 hidden states they come from; the last is after the final norm already.
        tokens: `[n]`, token ids.
        lens: from the layer to the last one's output, before the final norm. None: as it is, the logit lens
            (nostalgebraist 2020).

    Returns:
        `[n]`, whole numbers, 0 for the best.

    Raises ValueError for a lens after the final norm.
    """
    normed = layer == len(decoder_layers(model))
    if normed and lens is not None:
        raise ValueError(f"the state at layer {layer} is after the final norm: there is nothing for a lens to map")
    ranks = []
    for rows, wanted in zip(states.split(ROWS), tokens.split(ROWS)):
        rows = rows if lens is None else lens(rows)
        logits = (head_out(model, rows) if normed else read_out(model, rows)).cpu()
        ranks.append((logits > logits.gather(1, wanted[:, None])).sum(1))
    return torch.cat(ranks)


def own_layer_shares(interpreter: Interpreter, facts: Sequence[Fact], layers: Sequence[int]) -> dict[int, Estimate]:
    """Layer → share of facts named when the state is inserted into the very layer it was taken from.

    After a prompt that says nothing, the model then finishes its own pass: how much the state holds, and no
    interpretation. The state after the last layer has no layer to go to and is left out.
    """
    model, tokenizer = interpreter.model, interpreter.tokenizer
    inside = [layer for layer in layers if layer < len(decoder_layers(model))]
    states = last_token_states(model, tokenizer, [fact.prompt for fact in facts], inside)
    prompt = BARE.build(tokenizer)
    shares = {}
    for column, layer in enumerate(inside):
        settings = InterpretationSettings(insert_layer=layer, max_new_tokens=interpreter.settings.max_new_tokens)
        said = replace(interpreter, prompt=prompt, settings=settings, mapping=None)(states[:, column], layer)
        shares[layer] = estimate([names(fact.answer, one.text) for fact, one in zip(facts, said)])
    return shares
