"""Probabilities of texts after a prompt *without* surgery, each distinct text computed once.

The relevancy of a token is how much the surgery changed its probability, so every interpretation's text is read once
more after the untouched interpretation prompt. Texts are known by now: each is one row of one pass, no decode steps.
Many cells of a grid say the same, so each distinct text is read once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .cache import empty_cache, repeat_rows
from .logits import forward_scored, input_device

POSITIONS_PER_PASS = 1024
"""Token positions in one pass: enough to keep the matrix multiplies thick, few enough to keep the logits small."""


def plain_probabilities(
    model: nn.Module, prompt_ids: Sequence[int], texts: Sequence[tuple[int, ...]]
) -> dict[tuple[int, ...], tuple[float, ...]]:
    """Probability of every token of each distinct text after the prompt and the tokens before it, without surgery.

    Returns:
        for each non-empty text, one probability per token.
    """
    distinct = sorted({text for text in texts if text}, key=lambda text: (len(text), text))
    if not distinct:
        return {}
    device = input_device(model)
    prompt = torch.tensor([list(prompt_ids)], device=device)
    first, cache = forward_scored(model, prompt, empty_cache(model), torch.tensor([len(prompt_ids) - 1]))
    first = first[0, 0].softmax(-1)

    found = {}
    while distinct:
        width = len(distinct[-1])  # longest first, so that the rows of one pass have nearly the same length
        rows = max(1, POSITIONS_PER_PASS // width)
        distinct, batch = distinct[:-rows], distinct[-rows:]
        after = _probabilities_after_first(model, cache, batch, width, device)
        for text, later in zip(batch, after):
            found[text] = (float(first[text[0]]), *later[: len(text) - 1])
    return found


def _probabilities_after_first(
    model: nn.Module, cache: object, texts: Sequence[tuple[int, ...]], width: int, device: torch.device
) -> list[list[float]]:
    """Probabilities of the tokens from the second on; shorter texts are padded on the right, where nothing looks."""
    if width == 1:
        return [[] for _ in texts]
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    logits, _ = forward_scored(model, ids[:, :-1], repeat_rows(cache, len(texts)), torch.arange(width - 1))
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
    return (chosen - logits.logsumexp(-1)).exp().tolist()
