"""What answer recovery is held against: the logit lens, and the model that finishes its own pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import input_device
from ..models.thread_hooks import input_hook, output_hook
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .interpreter import Interpreter, last_token_states
from .questions import Fact, names
from .statistics import Estimate, estimate

LENS_BEST = (1, 10)
"""The answer counts as read by the lens if its first token is among so many."""
BARE = InterpretationPromptSpec("bare", text="Here is the next thing _")
ROWS = 256
"""Rows of logits that are held at once."""


def lens_shares(
    model: nn.Module, tokenizer: Any, facts: Sequence[Fact], layers: Sequence[int]
) -> dict[int, dict[int, Estimate]]:
    """Layer → k → share of facts whose answer's first token is among the k best of the logit lens."""
    states = last_token_states(model, tokenizer, [fact.prompt for fact in facts], layers)
    tokens = torch.tensor([first_answer_token(tokenizer, fact) for fact in facts])
    shares = {}
    for column, layer in enumerate(layers):
        ranks = lens_ranks(model, states[:, column], layer, tokens)
        shares[layer] = {best: estimate((ranks < best).tolist()) for best in LENS_BEST}
    return shares


def first_answer_token(tokenizer: Any, fact: Fact) -> int:
    """The token with which the answer begins where it follows the prompt."""
    before = encode_prompt(tokenizer, fact.prompt, raw=True)
    return encode_prompt(tokenizer, f"{fact.prompt} {fact.answer}", raw=True)[len(before)]


@torch.no_grad()
def lens_ranks(model: nn.Module, states: torch.Tensor, layer: int, tokens: torch.Tensor) -> torch.Tensor:
    """How many tokens the logit lens (nostalgebraist 2020) puts before the given ones.

    The states take the place of the last decoder layer's output, so that the model's own final norm, head and whatever
    it does to its logits afterwards apply, in every family.

    Args:
        states: `[n, hidden]` of one layer.
        layer: index into the n_layers + 1 hidden states they come from; the last is after the final norm already.
        tokens: `[n]`, token ids.

    Returns:
        `[n]`, whole numbers, 0 for the best.
    """
    normed = layer == len(decoder_layers(model))
    ranks = []
    for rows, wanted in zip(states.split(ROWS), tokens.split(ROWS)):
        logits = _logits(model, rows, normed=normed)
        ranks.append((logits > logits.gather(1, wanted[:, None])).sum(1))
    return torch.cat(ranks)


def _logits(model: nn.Module, rows: torch.Tensor, *, normed: bool) -> torch.Tensor:
    """float32 logits `[n, vocabulary]` on the CPU."""
    place = model.get_output_embeddings() if normed else decoder_layers(model)[-1]
    hook = input_hook if normed else output_hook
    with hook(place, lambda hidden: rows[:, None].to(hidden)):
        ids = torch.zeros((len(rows), 1), dtype=torch.long, device=input_device(model))
        return model(input_ids=ids, use_cache=False, return_dict=True).logits[:, -1].float().cpu()


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
        settings = replace(interpreter.settings, insert_layer=layer, replacing_mode="normalized", overlay_strength=1.0)
        said = replace(interpreter, prompt=prompt, settings=settings, mapping=None)(states[:, column], layer)
        shares[layer] = estimate([names(fact.answer, one.text) for fact, one in zip(facts, said)])
    return shares
