"""Probabilities of texts after a prompt *without* surgery, equal beginnings computed once.

The relevancy of a token is how much the surgery changed its probability, so every interpretation's text is read once
more after the untouched interpretation prompt. Many cells of a grid say the same, and more begin the same: their texts
form a tree. Near its root, where beginnings are shared, it is read level by level, all tokens of a level in one pass,
each on the keys and values of its parent; what is left of each distinct text is known by then, and read in one pass.

Per cell, in chunks of 256 cells of a grid with 29 tokens each: 17.6 token passes for the distinct texts, 12.9 for the
whole tree, 14.1 for eight levels and the rest. The whole tree takes 29 thin passes for that: for 64 cells it needs
1.5 times as long as eight levels and the rest, for 16 cells twice as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .cache import empty_cache, mask_beside, repeat_rows, select_rows
from .logits import input_device, next_logits, probabilities_of
from .memory import in_batches

Text = tuple[int, ...]

LEVELS = 8
"""Tokens of a text that are read level by level. Beginnings are shared there; later, hardly."""
POSITIONS_PER_PASS = 512
"""Of the rest: enough to keep the matrix multiplies thick, few enough to keep the logits small."""


def plain_probabilities(
    model: nn.Module, prompt_ids: Sequence[int], texts: Iterable[Text], *, batch_size: int
) -> dict[Text, tuple[float, ...]]:
    """Probability of every token of each text after the prompt and the tokens before it, without surgery.

    batch_size: texts that are read at once, in sorted order, so that equal beginnings fall together; halved when memory
    runs out.
    """
    distinct = sorted(set(texts))
    if not distinct:
        return {}
    prompt = torch.tensor([list(prompt_ids)], device=input_device(model))
    logits, cache = next_logits(model, prompt, empty_cache(model))
    read = in_batches(lambda batch: _read_tree(model, logits, repeat_rows(cache, 1), batch), distinct, batch_size)
    return {text: tuple(probabilities) for text, probabilities in zip(distinct, read)}


def _read_tree(model: nn.Module, logits: torch.Tensor, cache: Any, texts: Sequence[Text]) -> list[list[float]]:
    """The probabilities of each text's tokens; logits `[1, vocabulary]` and cache are those of the root, the prompt."""
    found: dict[Text, list[float]] = {text: [] for text in texts}
    parents: dict[Text, int] = {(): 0}
    for depth in range(LEVELS + 1):
        longer = [text for text in texts if len(text) > depth]
        rows, tokens = _tensor([(parents[text[:depth]], text[depth]) for text in longer], logits).T
        for text, probability in zip(longer, probabilities_of(logits, rows, tokens).tolist()):
            found[text].append(probability)

        nodes = list(dict.fromkeys(text[: depth + 1] for text in longer if len(text) > depth + 1))
        if not nodes:
            return list(found.values())
        if depth < LEVELS:
            rows = _tensor([parents[node[:-1]] for node in nodes], logits)
            tokens = _tensor([[node[-1]] for node in nodes], logits)
            logits, cache = next_logits(model, tokens, select_rows(cache, rows))
            parents = {node: row for row, node in enumerate(nodes)}

    rest = sorted((text for text in texts if len(text) > LEVELS + 1), key=len)
    while rest:
        count = max(1, POSITIONS_PER_PASS // (len(rest[-1]) - LEVELS - 1))  # of nearly the same length
        rest, batch = rest[:-count], rest[-count:]
        rows = _tensor([parents[text[:LEVELS]] for text in batch], logits)
        for text, probabilities in zip(batch, _read_rest(model, select_rows(cache, rows), batch)):
            found[text] += probabilities
    return list(found.values())


def _read_rest(model: nn.Module, cache: Any, texts: Sequence[Text]) -> list[list[float]]:
    """What follows the first LEVELS tokens of each text, which are in its row of the cache: the probabilities of all
    tokens but the next one. Shorter texts are padded on the right, where nothing looks."""
    width = max(map(len, texts)) - LEVELS - 1
    ids = torch.tensor([[*text[LEVELS:-1], *[0] * (width + LEVELS + 1 - len(text))] for text in texts])
    ids = ids.to(input_device(model))
    options = {"use_cache": True, "return_dict": True, **mask_beside(model, cache, ids)}
    logits = model(input_ids=ids, past_key_values=cache, **options).logits
    logits = logits.flatten(0, 1).to(ids.device)
    ends = [text[LEVELS + 1 :] for text in texts]
    places = [(row * width + step, token) for row, end in enumerate(ends) for step, token in enumerate(end)]
    probabilities = iter(probabilities_of(logits, *_tensor(places, logits).T).tolist())
    return [[next(probabilities) for _ in end] for end in ends]


def _tensor(values: Sequence[Any], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device)
