"""Rewards: what an interpretation is worth, from its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..models.chat_template import encode_prompt
from ..models.forward import input_device
from ..models.tokenizer import Tokenizer

Reward = Callable[[Sequence[str]], Sequence[float]]
"""Texts of interpretations → a number for each; the larger, the better."""

YES, NO = "Yes", "No"


@dataclass(frozen=True)
class Matching:
    """1 for a text in which the regular expression is found, in upper or lower case, else 0."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"the pattern {self.pattern!r} is no regular expression: {error}") from None

    def __call__(self, texts: Sequence[str]) -> list[float]:
        return [float(re.search(self.pattern, text, re.IGNORECASE) is not None) for text in texts]


@dataclass(frozen=True)
class Judged:
    """The model as the judge: p(Yes) / (p(Yes) + p(No)) where it is asked the question about the text."""

    question: str
    """With {text} where the text goes."""
    model: nn.Module = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)

    def __post_init__(self) -> None:
        check_question(self.question)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        answers = [self.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in (YES, NO)]
        shares = []
        for text in texts:
            asked = f"{self.question.replace('{text}', text.strip())}\nAnswer ({YES} or {NO}):"
            ids = torch.tensor([encode_prompt(self.tokenizer, asked, raw=True)], device=input_device(self.model))
            logits = self.model(input_ids=ids, use_cache=False, return_dict=True).logits[0, -1].float()
            shares.append(float(logits[answers].softmax(-1)[0]))
        return shares


def check_question(question: str) -> None:
    """Raise ValueError for one that has no place for the text."""
    if "{text}" not in question:
        raise ValueError(f"the question {question!r} has no {{text}}, where the interpretation goes")
