"""Attribute extraction and two-step questions by inserting into a question, as in Patchscopes (sections 4.2 and 5).

A fact's prompt is a question about a subject, "The capital of _ is": the subject's state goes in where the subject
would stand, at the layer that it comes from, and the model answers. Ghandeharioun and others 2024, arXiv:2401.06102.

    questions = questions_of(facts)                                  # per relation what stands around the subject
    score_attributes(model, tokenizer, questions, known, tuning, layers, batch_size=64)
    score_two_steps(model, tokenizer, two_steps_of(questions, known), layers, insert_layers, batch_size=64)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..engine.cell import Cell
from ..engine.decode import interpret_chunk
from ..engine.settings import InterpretationSettings
from ..models.chat_template import encode_prompt
from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from .interpreter import last_token_states
from .questions import Fact, names
from .recovery import COMPLETION_TOKENS, continuations, other_facts
from .statistics import Estimate, estimate

NEUTRAL = "I have heard of {}"
"""What the subject's state is read in; it ends with the subject, and says nothing of the relation."""
FIRST_STEPS = {
    "country of city": "the country where the city of {} is located",
    "birthplace": "the country where {} was born",
}
"""Relations whose answer may be the subject of another, and how a question says it in place of the answer."""
_FEWEST_SUBJECTS = 4
_RIDGE = 0.1
"""Of the mean squared size of what a probe is fitted on."""


@dataclass(frozen=True)
class Question:
    """What stands around the subject in the prompts of a relation."""

    relation: str
    before: str
    after: str

    def of(self, subject: str) -> str:
        return f"{self.before}{subject}{self.after}"

    def subject(self, fact: Fact) -> str:
        """Of a fact of the relation."""
        return fact.prompt[len(self.before) : len(fact.prompt) - len(self.after)]

    def prompt(self, tokenizer: Tokenizer) -> InterpretationPrompt:
        """With a placeholder where the subject stands. Raises ValueError where it would be no token of its own."""
        return InterpretationPromptSpec(self.relation, text=self.of("_"), placeholder="_").build(tokenizer)


@dataclass(frozen=True)
class TwoSteps:
    """A question whose subject is the answer of another."""

    first: Fact
    second: Fact
    question: Question
    """Of the second."""
    composed: str
    """Both steps in one prompt."""


@dataclass(frozen=True)
class Attributes:
    """Shares of facts at one layer."""

    net: Estimate
    """The answer is named, and not with the state of another subject of the relation."""
    named: Estimate
    by_other: Estimate
    linear_probe: Estimate
    """A ridge regression from the states of the tuning half's subjects to the embeddings of their answers, for each
    relation: the answer is the nearest of all of the relation."""


@dataclass(frozen=True)
class Repaired:
    """Shares of two-step questions, from one layer into another."""

    net: Estimate
    """The second step's answer is named with the first step's state, and not with that of another question."""
    named: Estimate
    by_other: Estimate
    composed: Estimate
    """The model answers both steps in one prompt; the same from and into every layer."""


def questions_of(facts: Sequence[Fact]) -> dict[str, Question]:
    """By relation, where its prompts differ in one place and there are enough of them."""
    found = {}
    for relation in dict.fromkeys(fact.relation for fact in facts):
        prompts = sorted({fact.prompt for fact in facts if fact.relation == relation})
        before = _beginning(prompts)
        before = before[: before.rfind(" ") + 1]  # whole words: what the subjects have in common is theirs
        after = _beginning([prompt[len(before) :][::-1] for prompt in prompts])[::-1]
        first = min((at for at in (after.find(" "), after.find(",")) if at >= 0), default=len(after))
        after = after[first:]
        if len(prompts) >= _FEWEST_SUBJECTS and (before or after):
            found[relation] = Question(relation, before, after)
    return found


def _beginning(texts: Sequence[str]) -> str:
    """What all of the texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((n for n, (one, other) in enumerate(zip(first, last)) if one != other), len(first))]


def two_steps_of(questions: Mapping[str, Question], facts: Sequence[Fact]) -> list[TwoSteps]:
    """Every pair of facts of which the first answers the subject of the second."""
    return [
        TwoSteps(first, second, questions[second.relation], questions[second.relation].of(_described(questions, first)))
        for first in facts
        if first.relation in FIRST_STEPS and first.relation in questions
        for second in facts
        if second.relation in questions
        and second.relation not in FIRST_STEPS
        and questions[second.relation].subject(second).casefold() == first.answer.casefold()
    ]


def score_attributes(
    model: nn.Module,
    tokenizer: Tokenizer,
    questions: Mapping[str, Question],
    facts: Sequence[Fact],
    tuning: Sequence[Fact],
    layers: Sequence[int],
    *,
    batch_size: int,
) -> dict[int, Attributes]:
    """Layer → shares of the facts whose relation has a question. tuning: what the probe is fitted on.

    Raises ValueError where there is no such fact.
    """
    facts = [fact for fact in facts if fact.relation in questions]
    tuning = [fact for fact in tuning if fact.relation in questions]
    if not facts:
        raise ValueError("no fact is of a relation whose prompts differ in their subject alone")
    others = other_facts(facts)
    states, fitted = (_subjects(model, tokenizer, questions, some, layers) for some in (facts, tuning))
    prompts = {relation: questions[relation].prompt(tokenizer) for relation in {fact.relation for fact in facts}}
    answers = _answers(model, tokenizer, [*facts, *tuning])
    found = {}
    for column, layer in enumerate(layers):
        own = _answered(
            model, tokenizer, states[:, column], [prompts[fact.relation] for fact in facts], layer, batch_size
        )
        swapped = states[others, column]
        guessed = _answered(model, tokenizer, swapped, [prompts[fact.relation] for fact in facts], layer, batch_size)
        named = [names(fact.answer, text) for fact, text in zip(facts, own)]
        by_other = [names(fact.answer, text) for fact, text in zip(facts, guessed)]
        probed = _probed(facts, tuning, states[:, column], fitted[:, column], answers)
        found[layer] = Attributes(
            estimate([one and not other for one, other in zip(named, by_other)]),
            estimate(named),
            estimate(by_other),
            estimate(probed),
        )
    return found


def score_two_steps(
    model: nn.Module,
    tokenizer: Tokenizer,
    pairs: Sequence[TwoSteps],
    layers: Sequence[int],
    insert_layers: Sequence[int],
    *,
    batch_size: int,
) -> dict[tuple[int, int], Repaired]:
    """(Layer, insert layer) → shares: the first prompt's last state goes in where the second prompt's subject stands.

    Raises ValueError where there are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} two-step questions: the facts have no two that follow one another")
    ids = [encode_prompt(tokenizer, pair.composed, raw=True) for pair in pairs]
    texts = [text_of(tokenizer, tokens) for tokens in continuations(model, ids)]
    alone = estimate([names(pair.second.answer, text) for pair, text in zip(pairs, texts)])
    states = last_token_states(model, tokenizer, [pair.first.prompt for pair in pairs], layers)
    prompts = [pair.question.prompt(tokenizer) for pair in pairs]
    others = other_facts([pair.second for pair in pairs])
    found = {}
    for column, layer in enumerate(layers):
        for into in insert_layers:
            own = _answered(model, tokenizer, states[:, column], prompts, into, batch_size)
            guessed = _answered(model, tokenizer, states[others, column], prompts, into, batch_size)
            named = [names(pair.second.answer, text) for pair, text in zip(pairs, own)]
            by_other = [names(pair.second.answer, text) for pair, text in zip(pairs, guessed)]
            net = estimate([one and not other for one, other in zip(named, by_other)])
            found[layer, into] = Repaired(net, estimate(named), estimate(by_other), alone)
    return found


def _described(questions: Mapping[str, Question], fact: Fact) -> str:
    """What a question says in place of the answer of a first step."""
    return FIRST_STEPS[fact.relation].format(questions[fact.relation].subject(fact))


def _subjects(
    model: nn.Module,
    tokenizer: Tokenizer,
    questions: Mapping[str, Question],
    facts: Sequence[Fact],
    layers: Sequence[int],
) -> Tensor:
    """`[facts, layers, hidden]`: the subjects' last tokens in a sentence of no relation."""
    texts = [NEUTRAL.format(questions[fact.relation].subject(fact)) for fact in facts]
    return last_token_states(model, tokenizer, texts, layers)


def _answered(
    model: nn.Module,
    tokenizer: Tokenizer,
    vectors: Tensor,
    prompts: Sequence[InterpretationPrompt],
    layer: int,
    batch_size: int,
) -> list[str]:
    """What follows each prompt by raw argmax with the vector `[hidden]` in its place, inserted at that layer."""
    settings = InterpretationSettings(insert_layer=layer, max_new_tokens=COMPLETION_TOKENS)
    cells = [Cell(vector, prompt) for vector, prompt in zip(vectors, prompts)]
    found = interpret_chunk(model, cells, settings, batch_size=batch_size)
    return [text_of(tokenizer, one.token_ids) for one in found]


def _answers(model: nn.Module, tokenizer: Tokenizer, facts: Sequence[Fact]) -> dict[str, Tensor]:
    """By answer, the unit vector of the mean of its tokens' embeddings, float32."""
    weight = model.get_input_embeddings().weight
    tokens = {fact.answer: tokenizer.encode(f" {fact.answer}", add_special_tokens=False) for fact in facts}
    return {
        answer: nn.functional.normalize(weight[ids].detach().float().cpu().mean(0), dim=0)
        for answer, ids in tokens.items()
    }


def _probed(
    facts: Sequence[Fact], tuning: Sequence[Fact], states: Tensor, fitted: Tensor, answers: Mapping[str, Tensor]
) -> list[bool]:
    """Whether the linear probe of its relation gives each fact's answer; states, fitted: `[n, hidden]` of one layer."""
    right = [False] * len(facts)
    for relation in {fact.relation for fact in facts}:
        rows, known = ([n for n, one in enumerate(some) if one.relation == relation] for some in (facts, tuning))
        if not known:
            continue
        candidates = sorted({one.answer for one in (*facts, *tuning) if one.relation == relation})
        mean = fitted[known].float().mean(0)
        inputs, outputs = fitted[known].float() - mean, torch.stack([answers[tuning[n].answer] for n in known])
        middle = outputs.mean(0)
        # n rows and more dimensions: by the inner products of the rows
        inner = inputs @ inputs.T
        weights = torch.linalg.solve(inner + _RIDGE * inner.diagonal().mean() * torch.eye(len(known)), outputs - middle)
        made = (states[rows].float() - mean) @ inputs.T @ weights + middle
        best = (made @ torch.stack([answers[one] for one in candidates]).T).argmax(-1)
        for row, candidate in zip(rows, best.tolist()):
            right[row] = candidates[candidate] == facts[row].answer
    return right
