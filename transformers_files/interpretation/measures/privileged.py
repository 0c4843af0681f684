"""Does an interpretation read the vector, or would the text alone have revealed as much?

The sharpest objection to verbalizers (arXiv:2509.13316): they may pass a test without the activation. Here answers are
what a reader of the text alone cannot know, since they are about invented persons that only a tuned copy of the model
has learned about; its embeddings are interpreted by the untouched model. Beside them stand a reader that is given the
source prompt's text in place of its vector, and vectors that are shuffled among the prompts.

    learned = learn_persons(model, tokenizer, persons)
    answers = read_answers(interpreter, facts, layers, source=learned)
    answers.shares(range(20)).net
    read_text(interpreter, facts).net
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from .interpreter import Interpreter, last_token_states
from .questions import Fact, names
from .recovery import continuations, other_facts
from .statistics import Estimate, estimate_ratio


@dataclass(frozen=True)
class PrivilegedShares:
    """Shares of answers."""

    net: Estimate
    """Named, and not by the interpretation of another fact's vector (of the same relation, with another answer)."""
    named: Estimate
    by_other: Estimate
    by_shuffled: Estimate
    """By the interpretation of another prompt's vector, drawn at random."""


@dataclass(frozen=True)
class Answers:
    """Facts, and the interpretations at the positions where they are read."""

    facts: Sequence[Fact]
    """Several may have one prompt."""
    texts: Mapping[int, Mapping[str, str]]
    """Layer → prompt of a fact → its interpretation."""
    units: Sequence[Hashable]
    """The unit that is resampled for confidence intervals: a person, who has several facts, or the fact itself."""

    def shares(self, layers: Container[int]) -> PrivilegedShares:
        """Of the facts that are named at any of these layers; with one layer, at that one."""
        others = [self.facts[other].prompt for other in other_facts(self.facts)]
        elsewhere = shuffled([fact.prompt for fact in self.facts])
        read = [of_layer for layer, of_layer in self.texts.items() if layer in layers]

        def named(prompts: Sequence[str]) -> list[bool]:
            return [
                any(names(fact.answer, texts[prompt]) for texts in read) for fact, prompt in zip(self.facts, prompts)
            ]

        own, by_other = named([fact.prompt for fact in self.facts]), named(others)
        net = [hit and not guess for hit, guess in zip(own, by_other)]
        by_shuffled = named([elsewhere[fact.prompt] for fact in self.facts])
        return PrivilegedShares(*(self._estimate(values) for values in (net, own, by_other, by_shuffled)))

    def _estimate(self, values: Sequence[bool]) -> Estimate:
        by_unit: dict[Hashable, list[bool]] = {}
        for unit, value in zip(self.units, values):
            by_unit.setdefault(unit, []).append(value)
        groups = list(by_unit.values())
        return estimate_ratio([sum(group) for group in groups], [len(group) for group in groups])


def read_answers(
    interpreter: Interpreter,
    facts: Sequence[Fact],
    layers: Sequence[int],
    *,
    source: nn.Module | None = None,
    units: Sequence[Hashable] | None = None,
) -> Answers:
    """Interpretations of the last tokens of the facts' prompts, layer by layer.

    source: whose embeddings are interpreted; None: the interpreting model's own. units: see `Answers`; None: each fact
    stands for itself.
    """
    prompts = list(dict.fromkeys(fact.prompt for fact in facts))
    states = last_token_states(interpreter.model if source is None else source, interpreter.tokenizer, prompts, layers)
    said = {layer: interpreter(states[:, column], layer) for column, layer in enumerate(layers)}
    texts = {layer: {prompt: one.text for prompt, one in zip(prompts, of_layer)} for layer, of_layer in said.items()}
    return Answers(facts, texts, range(len(facts)) if units is None else units)


def read_text(
    interpreter: Interpreter, facts: Sequence[Fact], *, units: Sequence[Hashable] | None = None
) -> PrivilegedShares:
    """The reader that has the text and no vector: the interpretation prompt with the source prompt's text in place of
    its placeholders, continued by raw argmax (guidance has no meaning without a vector)."""
    prompts = list(dict.fromkeys(fact.prompt for fact in facts))
    ids = [with_text(interpreter.prompt, interpreter.tokenizer, prompt) for prompt in prompts]
    said = continuations(interpreter.model, ids, interpreter.settings.max_new_tokens)
    texts = [text_of(interpreter.tokenizer, tokens) for tokens in said]
    stop = interpreter.prompt.stop
    texts = texts if stop is None else [stop.cut(text) for text in texts]
    return Answers(facts, {0: dict(zip(prompts, texts))}, range(len(facts)) if units is None else units).shares([0])


def with_text(prompt: InterpretationPrompt, tokenizer: Tokenizer, text: str) -> list[int]:
    """The prompt's tokens, with those of a text in place of its placeholders: of those that nothing but white space
    stands between, once."""
    first = tokenizer.decode([prompt.input_ids[prompt.insert_locations[0]]])
    given = tokenizer.encode(f" {text}" if first.startswith(" ") else text, add_special_tokens=False)
    ids: list[int] = []
    end = 0
    for place in prompt.insert_locations:
        between = list(prompt.input_ids[end:place])
        if not end or tokenizer.decode(between).strip():
            ids += [*between, *given]
        end = place + 1
    return [*ids, *prompt.input_ids[end:]]


def shuffled(prompts: Sequence[str]) -> dict[str, str]:
    """Each prompt → another one, drawn at random; none is drawn twice. The same on every call."""
    different = list(dict.fromkeys(prompts))
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(0)).tolist()
    return {different[one]: different[other] for one, other in zip(order, [*order[1:], *order[:1]])}
