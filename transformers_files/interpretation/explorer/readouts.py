"""What can be asked of the model beside interpretations: its own lens, and how well a text fits an embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.insertion import read_shared_part, read_under_surgery, resolved
from ..errors.suggestions import did_you_mean
from ..mapping.lenses import Lens
from ..models.activations import capture
from ..models.families import decoder_layers
from ..models.forward import head_out, input_device, next_logits, read_out
from ..models.kv_cache import check_window
from ..models.token_text import token_pieces
from ..models.tokenizer import Tokenizer
from ..runs.job import Job
from ..runs.limits import Limits
from .queries import LOGIT, LensQuery, selection

MOST_CELLS = 5000
"""Of a lens: a few seconds on two cores."""
_ROWS = 64
"""States that are read out at once: `[rows, vocabulary]` logits."""


@torch.no_grad()
def lens_cells(
    model: nn.Module, tokenizer: Tokenizer, query: LensQuery, lenses: Mapping[str, Lens]
) -> list[dict[str, Any]]:
    """The k most probable tokens at each layer and token, by the logit lens (nostalgebraist 2020) or a fitted one.

    lenses: the fitted ones, by name. The state after the final norm is read by the head alone, by every lens.
    Raises ValueError.
    """
    ids, last = query.token_ids(tokenizer), len(decoder_layers(model))
    for problem in Limits.of(model).problems(ids, 0):
        raise ValueError(f"the prompt {problem}")
    layers = selection("layers", query.layers).resolve(last + 1)
    tokens = selection("tokens", query.tokens).resolve(len(ids))
    if len(layers) * len(tokens) > MOST_CELLS:
        raise ValueError(f"{len(layers) * len(tokens):,} cells are more than {MOST_CELLS:,}: choose fewer of them")
    lens = _lens(query.lens, lenses)
    missing = [] if lens is None else [layer for layer in layers if layer < last and layer not in lens.maps]
    if lens is not None and missing:
        raise ValueError(f"the lens {query.lens} has no map of layers {missing}; it has {sorted(lens.maps)}")
    states = capture(model, torch.tensor([ids], device=input_device(model)), layers, tokens)
    cells = []
    for layer, rows in zip(layers, states):
        for some, its in zip(rows.split(_ROWS), torch.arange(len(rows)).split(_ROWS)):
            if layer == last:
                logits = head_out(model, some)
            else:
                logits = read_out(model, some if lens is None else lens.maps[layer](some))
            tops = _top(tokenizer, logits, query.k)
            cells += [{"layer": layer, "token": tokens[row], "top": top} for row, top in zip(its.tolist(), tops)]
    return cells


def _lens(name: str, lenses: Mapping[str, Lens]) -> Lens | None:
    if name != LOGIT and name not in lenses:
        known = [LOGIT, *lenses]
        raise ValueError(f"there is no lens {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return lenses.get(name)


def _top(tokenizer: Tokenizer, logits: Tensor, k: int) -> list[list[dict[str, Any]]]:
    """The k best tokens of each row of logits `[n, vocabulary]`, fewer of a smaller vocabulary."""
    if not torch.isfinite(logits.amax(-1)).all():
        raise ValueError("the model's logits have NaN or infinity there")
    best = logits.softmax(-1).topk(min(k, logits.shape[-1]))
    return [
        [
            {"text": "".join(token_pieces(tokenizer, [token])), "probability": round(probability, 6)}
            for token, probability in zip(ids, probabilities)
        ]
        for ids, probabilities in zip(best.indices.tolist(), best.values.tolist())
    ]


@torch.no_grad()
def score_text(model: nn.Module, tokenizer: Tokenizer, job: Job, text: str) -> dict[str, Any]:
    """How probable a text is as the interpretation of the job's one cell, with its embedding and without.

    Its tokens are forced one by one after the interpretation prompt, in two rows, of which one has the embedding.

    Returns:
        the tokens, each with its two probabilities and its relevancy; and "log_ratio": log p(text with) − log p(text
        without), in nats. Raises ValueError.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    (prompt,) = job.plan.prompts
    for problem in Limits.of(model).problems((*prompt.input_ids, *ids), 0):
        raise ValueError(f"the interpretation prompt with the text {problem}")
    check_window(model, len(prompt.input_ids) + len(ids))
    (ready,) = job.ready(job.plan.chunk(0))
    cell = resolved(ready.cell, model.dtype, job.settings)
    logits, cache = read_under_surgery(
        model, cell.prompt, [cell], job.settings, read_shared_part(model, cell.prompt), untouched=1
    )
    tokens, ratio = [], 0.0
    for number, (token, piece) in enumerate(zip(ids, token_pieces(tokenizer, ids))):
        logs = logits.float().log_softmax(-1)[:, token].tolist()
        if not all(map(math.isfinite, logs)):
            raise ValueError("the embedding drives the model's numbers out of range")
        with_it, without = (math.exp(one) for one in logs)
        ratio += logs[0] - logs[1]
        tokens.append({"text": piece, "probability": with_it, "without": without, "relevancy": abs(with_it - without)})
        if number < len(ids) - 1:
            step = torch.tensor([[token], [token]], device=input_device(model))
            logits, cache = next_logits(model, step, cache)
    return {"tokens": tokens, "log_ratio": ratio}
