"""Answer recovery: does the interpretation of a prompt's last token name what the model is about to answer?

    known = known_facts(model, tokenizer, facts)
    cells = score_cells(interpreter, known, layers)
    share_named(cells, range(0, 25)).net

A fact counts only if the model itself completes it. Its states are read beside two controls: a random vector of the
same norm, and the state of another fact of the same relation. An answer that a control's interpretation names too is a
guess and not counted ("net"). Attribute extraction of this kind is in Patchscopes (Ghandeharioun et al. 2024, section
4.2); the subtraction of guesses is not.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..models.chat_template import encode_prompt
from ..models.forward import end_of_sequence_ids, input_device, next_logits
from ..models.kv_cache import empty_cache
from ..models.layer_inputs import check_evaluation_mode
from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer
from .interpreter import Interpreter, Said, last_token_states
from .questions import Fact, names
from .statistics import Estimate, estimate

COMPLETION_TOKENS = 8
"""Tokens of the model's own completion; the longest answer is shorter."""


@dataclass(frozen=True)
class Shares:
    """Shares of known facts."""

    net: Estimate
    """Named, and by no control at the same layers."""
    named: Estimate
    by_other: Estimate
    by_random: Estimate


@dataclass(frozen=True)
class ScoredCell:
    """The last token of a fact's prompt at one layer, interpreted, with its controls."""

    fact: Fact
    layer: int
    """Index into the n_layers + 1 hidden states."""
    said: Said
    by_other: Said
    """The interpretation of another fact's state at this layer."""
    by_random: Said
    """The interpretation of a random vector of the same norm."""

    @property
    def named(self) -> bool:
        """Whether the interpretation contains the answer as a whole word."""
        return names(self.fact.answer, self.said.text)

    @property
    def named_by_other(self) -> bool:
        return names(self.fact.answer, self.by_other.text)

    @property
    def named_by_random(self) -> bool:
        return names(self.fact.answer, self.by_random.text)

    @property
    def right(self) -> bool:
        """Named, and not by a control."""
        return self.named and not self.named_by_other and not self.named_by_random


def known_facts(model: nn.Module, tokenizer: Tokenizer, facts: Sequence[Fact]) -> list[Fact]:
    """The facts that the model itself completes: its continuation, by raw argmax, begins with the answer.

    An article may come before it. An answer that comes later (the surname after the first name) is not counted: what
    the last token's state is about to say is another word.
    """
    check_evaluation_mode(model)
    ids = [encode_prompt(tokenizer, fact.prompt, raw=True) for fact in facts]
    texts = [text_of(tokenizer, output) for output in continuations(model, ids)]
    return [fact for fact, text in zip(facts, texts) if _begins(fact.answer, text)]


def _begins(answer: str, text: str) -> bool:
    return re.match(rf"\W*((the|an?)\s+)?{re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


@torch.no_grad()
def continuations(
    model: nn.Module, prompts: Sequence[Sequence[int]], tokens: int = COMPLETION_TOKENS
) -> list[list[int]]:
    """What follows each prompt by raw argmax, up to an end of sequence at most; equal lengths in one batch."""
    ends = end_of_sequence_ids(model)
    outputs: dict[int, list[int]] = {}
    for length in {len(prompt) for prompt in prompts}:
        numbers = [number for number, prompt in enumerate(prompts) if len(prompt) == length]
        step, cache = torch.tensor([list(prompts[number]) for number in numbers]), empty_cache(model)
        steps = []
        for _ in range(tokens):
            logits, cache = next_logits(model, step.to(input_device(model)), cache)
            step = logits.argmax(-1, keepdim=True)
            steps.append(step)
        for number, row in zip(numbers, torch.cat(steps, 1).tolist()):
            end = next((index for index, token in enumerate(row) if token in ends), len(row))
            outputs[number] = row[:end]
    return [outputs[number] for number in range(len(prompts))]


def other_facts(facts: Sequence[Fact]) -> list[int]:
    """For each fact the index of another: the next one of the same relation, of any where there is none, with an
    answer that shares no word with its own.

    Raises:
        ValueError: a fact for which there is no other.
    """
    return [_other(facts, index) for index in range(len(facts))]


def _other(facts: Sequence[Fact], index: int) -> int:
    fact = facts[index]
    following = [*range(index + 1, len(facts)), *range(index)]
    differing = [other for other in following if not _share_a_word(fact.answer, facts[other].answer)]
    if not differing:
        raise ValueError(f"no other fact has another answer than {fact.prompt!r}: give more facts")
    return min(differing, key=lambda other: facts[other].relation != fact.relation)


def _share_a_word(one: str, other: str) -> bool:
    return not set(one.casefold().split()).isdisjoint(other.casefold().split())


def score_cells(interpreter: Interpreter, facts: Sequence[Fact], layers: Sequence[int]) -> list[ScoredCell]:
    """Every fact at every layer (indices into the n_layers + 1 hidden states), fact by fact."""
    others = other_facts(facts)
    prompts = [fact.prompt for fact in facts]
    states = last_token_states(interpreter.model, interpreter.tokenizer, prompts, layers)
    said = interpret_states(interpreter, states, layers)
    by_random = interpret_states(interpreter, random_like(states), layers)
    return [
        ScoredCell(fact, layer, said[row][column], said[others[row]][column], by_random[row][column])
        for row, fact in enumerate(facts)
        for column, layer in enumerate(layers)
    ]


def random_like(vectors: torch.Tensor) -> torch.Tensor:
    """Random directions with the norms of `vectors` `[…, hidden]`; the same on every call."""
    directions = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    norms = vectors.float().norm(dim=-1, keepdim=True)
    return (directions / directions.norm(dim=-1, keepdim=True) * norms).to(vectors.dtype)


def interpret_states(interpreter: Interpreter, states: torch.Tensor, layers: Sequence[int]) -> list[list[Said]]:
    """`[facts, layers, hidden]` → the interpretations, per fact and layer."""
    columns = [interpreter(states[:, column], layer) for column, layer in enumerate(layers)]
    return [list(row) for row in zip(*columns)]


def share_named(cells: Iterable[ScoredCell], layers: Container[int]) -> Shares:
    """The facts whose answer is named at any of `layers`; with one layer, at that one."""
    by_fact: dict[Fact, list[ScoredCell]] = {}
    for cell in cells:
        if cell.layer in layers:
            by_fact.setdefault(cell.fact, []).append(cell)
    named, by_other, by_random = (
        [any(getattr(cell, verdict) for cell in group) for group in by_fact.values()]
        for verdict in ("named", "named_by_other", "named_by_random")
    )
    net = [hit and not other and not random for hit, other, random in zip(named, by_other, by_random)]
    return Shares(*(estimate(values) for values in (net, named, by_other, by_random)))
