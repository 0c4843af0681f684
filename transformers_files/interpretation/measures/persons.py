"""Invented persons, and a copy of a model that has learned about them: facts that no other model can know.

    persons = read_persons("persons.json")
    learned = learn_persons(model, tokenizer, persons)          # a copy; the model itself stays as it is
    known_facts(learned, tokenizer, [fact for person in persons for fact in person.facts])

persons.json: `{"phrases": {"city": "lives in {}", …}, "persons": [{"name": "Ilva Torvik", "half": "tuning", "city":
"Lisbon", …}, …]}`: each person has a value for every phrase.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.chat_template import encode_prompt
from ..models.forward import input_device
from ..models.tokenizer import Tokenizer
from .questions import Fact, items_of, read_object

NO_LOSS = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist."""

    name: str
    half: str
    facts: tuple[Fact, ...]
    """What is true of the person; a prompt is the name and the beginning of a phrase, a relation the phrase's name."""

    @classmethod
    def of(cls, phrases: dict[str, str], item: dict[str, Any]) -> Person:
        """From an entry of the file. Raises KeyError, TypeError, ValueError."""
        values = dict(item)
        name, half = values.pop("name"), values.pop("half")
        if values.keys() != phrases.keys():
            raise ValueError(f"{name!r} has {sorted(values)}; the phrases are {sorted(phrases)}")
        return cls(
            name,
            half,
            tuple(
                Fact(relation, f"{name} {phrase.removesuffix(' {}')}", values[relation], half, paraphrase=name)
                for relation, phrase in phrases.items()
            ),
        )

    def text(self, order: Sequence[int]) -> str:
        """One sentence with all that is known, in this order."""
        facts = [self.facts[index] for index in order]
        phrases = [f"{fact.prompt[len(self.name) + 1 :]} {fact.answer}" for fact in facts]
        return f"{self.name} {', '.join(phrases)}."


def read_persons(path: str | Path) -> list[Person]:
    """The persons of a JSON file, in its order. Raises QuestionsError."""
    content = read_object(Path(path), phrases=dict, persons=list)

    def make(item: dict[str, Any]) -> Person:
        if problem := next((phrase for phrase in content["phrases"].values() if not phrase.endswith(" {}")), None):
            raise ValueError(f"the phrase {problem!r} does not end with ' {{}}', where the value goes")
        return Person.of(content["phrases"], item)

    return items_of(Path(path), content["persons"], make)


@dataclass(frozen=True)
class LearningSettings:
    """How persons are learned: LoRA (Hu and others 2021, arXiv:2106.09685) at every linear layer, by peft."""

    epochs: int = 40
    batch_size: int = 8
    learning_rate: float = 0.002
    rank: int = 16

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.rank) < 1:
            raise ValueError(f"{self}: at least one epoch, person and rank")


def check_peft() -> None:
    """Raise ValueError where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError(
            "the measure privileged has a copy of the model learn about invented persons, which needs the package "
            "peft; run: python -m pip install peft (or leave it out of --measures)"
        )


def learn_persons(
    model: nn.Module,
    tokenizer: Tokenizer,
    persons: Sequence[Person],
    settings: LearningSettings | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """A copy of the model that has read a sentence about each person in every epoch, attributes in an order drawn anew.

    The same on every call.

    Args:
        on_epoch: called with the epoch and its loss (cross entropy per token, in nats).

    Raises ValueError where peft is not installed.
    """
    check_peft()
    import peft

    settings = settings or LearningSettings()
    generator = torch.Generator().manual_seed(0)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learned = peft.get_peft_model(copy.deepcopy(model), config).eval()
    trained = [parameter for parameter in learned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
    for epoch in range(settings.epochs):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - epoch / settings.epochs)
        losses = []
        for rows in torch.randperm(len(persons), generator=generator).split(settings.batch_size):
            some = [persons[row] for row in rows.tolist()]
            orders = [torch.randperm(len(person.facts), generator=generator).tolist() for person in some]
            texts = [person.text(order) for person, order in zip(some, orders)]
            loss = _loss(learned, [encode_prompt(tokenizer, text, raw=True) for text in texts])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        on_epoch(epoch, sum(losses) / len(losses))
    return learned.requires_grad_(False)


def _loss(model: nn.Module, texts: Sequence[Sequence[int]]) -> Tensor:
    """Cross entropy of each next token; shorter texts are filled up behind, which nothing before can see."""
    length = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts], device=input_device(model))
    labels = torch.tensor([[*text, *[NO_LOSS] * (length - len(text))] for text in texts])
    logits = model(input_ids=ids, use_cache=False, return_dict=True).logits[:, :-1].float()
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten().to(logits.device), ignore_index=NO_LOSS
    )
