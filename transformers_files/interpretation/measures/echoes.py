"""Echoes: how often interpretations say words of the interpretation prompt's own examples.

    echoes = score_echoes(interpreter, read_examples("demo.json"), range(31))
    echoes.most(3)                      # {"city": 0.067, "many": 0.028, "lives": 0.023}

A few-shot prompt says its own words whatever is inserted. Where one of them comes in more cells than the source text
gives reason for, it is the prompt's habit. What the share cannot tell is an echo from a word that is right: "city" is
both in a text about cities.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..models.activations import capture
from ..models.chat_template import encode_prompt
from ..models.forward import input_device
from ..prompts.examples import Example
from .interpreter import Interpreter

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it"),
        *("its", "of", "on", "or", "that", "the", "this", "to", "was", "with"),
    )
)
"""Left out: any English text has them."""


@dataclass(frozen=True)
class Echoes:
    """Words of the interpretation prompt in interpretations."""

    shares: dict[str, float]
    """Word → share of cells that say it, 0 … 1; the most frequent first. All of the prompt's, in lower case."""
    cells: int

    def most(self, count: int) -> dict[str, float]:
        """Those that come most often."""
        return dict(list(self.shares.items())[:count])


def score_echoes(interpreter: Interpreter, examples: Sequence[Example], layers: Sequence[int]) -> Echoes:
    """Of all tokens of the examples' prompts at these layers (indices into the n_layers + 1 hidden states)."""
    model, tokenizer = interpreter.model, interpreter.tokenizer
    states = []
    for example in examples:
        ids = encode_prompt(tokenizer, example.prompt, raw=example.raw)
        batch = torch.tensor([ids], device=input_device(model))
        states.append(capture(model, batch, layers, range(len(ids))))
    by_layer = torch.cat(states, 1)
    texts = [said.text for vectors, layer in zip(by_layer, layers) for said in interpreter(vectors, layer)]
    return echoes_in(texts, interpreter.prompt.text)


def echoes_in(texts: Sequence[str], prompt: str) -> Echoes:
    """The prompt's words in some texts; raises ValueError where there are no texts."""
    if not texts:
        raise ValueError("there are no interpretations to look at")
    said = Counter(word for text in texts for word in _words(text))
    own = sorted(_words(prompt), key=lambda word: (-said[word], word))
    return Echoes({word: said[word] / len(texts) for word in own}, len(texts))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.casefold())) - FUNCTION_WORDS
