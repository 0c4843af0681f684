"""Search for the interpretation prompt and settings that recover most answers of the tuning half.

One thing is varied at a time, and the best kept: the wording with the strength, then the number of placeholders, the
insert layer, the strength again, the replacing mode, guidance, the gain of deep states, and whether it ends at the line
break. What is compared is the share of facts named at any of the layers, net of what is named for another fact; random
vectors are left for the final evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..engine.settings import InterpretationSettings
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .interpreter import Interpreter, last_token_states
from .questions import Fact, names
from .recovery import interpret_states, other_facts
from .statistics import Estimate, estimate

WORDINGS = {
    "describe": (
        "Syria: a country in the Middle East\nLeonardo DiCaprio: an American actor\n"
        "Samsung: a South Korean electronics company\n "
    ),
    "words": "cold, gold, London, Africa, children, Japan, tennis, Spanish, euro,",
    "statements": "The answer is London.\nThe answer is cold.\nThe answer is gold.\nThe answer is",
    "questions": (
        "Q: What is the capital of Chile?\nA: Santiago\nQ: What is the opposite of big?\nA: small\nQ: What is it?\nA:"
    ),
    "answer": "The answer is",
}
"""Texts that end where the embedding goes in; its interpretation follows."""
PLACEHOLDERS = (1, 2, 3)
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0)
FIRST_STRENGTHS = (1.0, 3.0)
MODES = (("norm_matched_addition", None), ("norm_matched", 1.0), ("normalized", 1.0))
"""Replacing modes besides addition, with their strength; None: that of the best candidate so far."""
GUIDANCE = (0.0, 0.5, 1.0, 2.0)
DEEP_GAINS = (1.0, 2.0, 4.0)
STOPS = ("", "\n")
"""Nothing that follows the line break of a list is about the vector; it may name an answer by chance."""
FIRST_LAYER = 2
"""Where to begin."""


@dataclass(frozen=True)
class Candidate:
    """A way to interpret."""

    wording: str
    """A text that the placeholders follow."""
    name: str
    placeholders: int
    insert_layer: int
    strength: float
    """Of the embedding. In addition a state of a deep layer outweighs what was there many times, and what the layers on
    its way add to it turns it the less, the longer it is."""
    replacing_mode: str = "addition"
    guidance: float = 0.0
    deep_gain: float = 1.0
    stop: str = ""
    """Of the interpretation prompt."""

    def spec(self) -> InterpretationPromptSpec:
        return InterpretationPromptSpec(self.name, sequence=(self.wording, *[0] * self.placeholders), stop=self.stop)

    def settings(self, max_new_tokens: int) -> InterpretationSettings:
        return InterpretationSettings(
            self.insert_layer,
            self.replacing_mode,
            self.strength,
            max_new_tokens,
            guidance=self.guidance,
            deep_gain=self.deep_gain,
        )


@dataclass(frozen=True)
class Trial:
    """A candidate and how well it did on the tuning half."""

    candidate: Candidate
    net: Estimate
    """Share of facts named at any layer, and not for another fact."""
    named: Estimate


class Search:
    """Trials of candidates on the same facts and layers; none is tried twice."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        facts: Sequence[Fact],
        layers: Sequence[int],
        *,
        max_new_tokens: int,
        batch_size: int,
    ) -> None:
        self._model, self._tokenizer, self._facts = model, tokenizer, facts
        self._max_new_tokens, self._batch_size = max_new_tokens, batch_size
        self._layers = layers
        self._others = other_facts(facts)
        self._states: torch.Tensor = last_token_states(model, tokenizer, [fact.prompt for fact in facts], layers)
        self.trials: dict[Candidate, Trial] = {}

    def best(self) -> Trial:
        """The best so far; of equally good ones the first."""
        return max(self.trials.values(), key=lambda trial: trial.net.value)

    def run(self, deepest_insert_layer: int, wordings: dict[str, str] = WORDINGS) -> Iterator[Trial]:
        """Try candidates in rounds, each round around the best so far; yields every trial."""
        first_layer = min(FIRST_LAYER, deepest_insert_layer)
        yield from self._try(
            Candidate(text, name, 1, first_layer, strength)
            for name, text in wordings.items()
            for strength in FIRST_STRENGTHS
        )
        rounds: list[Callable[[Candidate], Iterable[Candidate]]] = [
            lambda best: (replace(best, placeholders=count) for count in PLACEHOLDERS),
            lambda best: (replace(best, insert_layer=layer) for layer in range(deepest_insert_layer + 1)),
            lambda best: (replace(best, strength=strength) for strength in STRENGTHS),
            lambda best: (
                replace(best, replacing_mode=mode, strength=strength or best.strength) for mode, strength in MODES
            ),
            lambda best: (replace(best, guidance=guidance) for guidance in GUIDANCE),
            lambda best: (replace(best, deep_gain=gain) for gain in DEEP_GAINS),
            lambda best: (replace(best, stop=stop) for stop in STOPS),
        ]
        for around in rounds:
            yield from self._try(around(self.best().candidate))

    def _try(self, candidates: Iterable[Candidate]) -> Iterator[Trial]:
        for candidate in candidates:
            if candidate not in self.trials:
                self.trials[candidate] = self._trial(candidate)
                yield self.trials[candidate]

    def _trial(self, candidate: Candidate) -> Trial:
        prompt = candidate.spec().build(self._tokenizer)
        settings = candidate.settings(self._max_new_tokens)
        said = interpret_states(
            Interpreter(self._model, self._tokenizer, prompt, settings, self._batch_size), self._states, self._layers
        )
        named = [any(names(fact.answer, one.text) for one in row) for fact, row in zip(self._facts, said)]
        guessed = [
            any(names(fact.answer, one.text) for one in said[other]) for fact, other in zip(self._facts, self._others)
        ]
        net = [hit and not guess for hit, guess in zip(named, guessed)]
        return Trial(candidate, estimate(net), estimate(named))
