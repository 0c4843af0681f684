"""Facts edited through their explanations: does what the model answers change with what it says about itself?

    edits = edits_of(known)                                         # another answer of the same relation for each fact
    tuned = edit_by_explanation(model, tokenizer, edit, references, layer=24, settings=settings)
    outcome_of(tuned.model, tokenizer, edit, known)

The rival is plain fine-tuning: the same weights, steps and references, and the gradient of the new answer's own
probability after the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..mapping.translator import frozen
from ..measures.questions import Fact
from ..measures.recovery import known_facts, other_facts
from ..models.forward import input_device
from ..models.tokenizer import Tokenizer
from .objective import source_ids
from .targets import Target
from .training import ControlSettings, Kept, control, train
from .tuning import Tuned, tune


@dataclass(frozen=True)
class Edit:
    """A fact, and what is to be answered instead."""

    fact: Fact
    answer: str

    @property
    def edited(self) -> Fact:
        return Fact(self.fact.relation, self.fact.prompt, self.answer, self.fact.half, self.fact.paraphrase)

    @property
    def paraphrased(self) -> Fact:
        """The edited fact, asked in other words."""
        return Fact(self.fact.relation, self.fact.paraphrase, self.answer, self.fact.half, self.fact.prompt)


@dataclass(frozen=True)
class Outcome:
    """What a changed model answers."""

    prompt: bool
    """The new answer, to the prompt that was trained."""
    paraphrase: bool
    """The new answer, to the same question in other words."""
    relation_kept: float
    """Share of other facts of the relation that are answered as before."""
    others_kept: float
    """The same of facts of other relations."""


def edits_of(facts: Sequence[Fact]) -> list[Edit]:
    """One for each fact: the answer to another fact of the same relation."""
    return [Edit(fact, facts[other].answer) for fact, other in zip(facts, other_facts(facts))]


def spread(edits: Sequence[Edit], n: int) -> list[Edit]:
    """So many of them, first one of each relation, then a second of each, and so on."""
    turns = [
        [one.fact.relation for one in edits[: index + 1]].count(edit.fact.relation) for index, edit in enumerate(edits)
    ]
    return [edit for _, edit in sorted(zip(turns, edits), key=lambda pair: pair[0])][:n]


def edit_by_explanation(
    model: nn.Module, tokenizer: Tokenizer, edit: Edit, references: Sequence[str], layer: int, settings: ControlSettings
) -> Tuned:
    """The interpretation of the prompt's last token at that layer becomes the new answer."""
    target = Target(edit.fact.prompt, layer, f" {edit.answer}")
    return control(model, tokenizer, [target], references=references, settings=settings)


def edit_by_fine_tuning(
    model: nn.Module, tokenizer: Tokenizer, edit: Edit, references: Sequence[str], layer: int, settings: ControlSettings
) -> Tuned:
    """The new answer becomes probable after the prompt. layer: where the references' states are held."""
    prompt = source_ids(tokenizer, edit.fact.prompt)
    answer = tokenizer.encode(f" {edit.answer}", add_special_tokens=False)
    layers = tuple(range(layer)) if settings.layers is None else settings.layers
    tuned = tune(model, layers, settings.training, rank=settings.rank, seed=settings.seed)
    ids = torch.tensor([[*prompt, *answer]], device=input_device(model))

    def loss(number: int) -> Tensor:
        logits = tuned.model(input_ids=ids, use_cache=False, return_dict=True).logits[0, len(prompt) - 1 : -1].float()
        return nn.functional.cross_entropy(logits, ids[0, len(prompt) :].to(logits.device))

    with frozen(model):
        train(tuned, loss, Kept.of(model, tokenizer, references, [layer]), settings)
    return tuned


def outcome_of(model: nn.Module, tokenizer: Tokenizer, edit: Edit, known: Sequence[Fact]) -> Outcome:
    """known: facts that the untouched model answers, of which the edited one does not count.

    Raises ValueError where nothing is left of a kind to compare with.
    """
    others = [fact for fact in known if fact.prompt != edit.fact.prompt]
    found = known_facts(model, tokenizer, [*others, edit.edited, edit.paraphrased])

    def share(facts: Sequence[Fact]) -> float:
        if not facts:
            raise ValueError(f"no other facts to compare {edit.fact.prompt!r} with")
        return sum(fact in found for fact in facts) / len(facts)

    alike = [fact for fact in others if fact.relation == edit.fact.relation]
    unlike = [fact for fact in others if fact.relation != edit.fact.relation]
    return Outcome(edit.edited in found, edit.paraphrased in found, share(alike), share(unlike))
