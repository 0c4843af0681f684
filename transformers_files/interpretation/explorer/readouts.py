"""What can be asked of the model beside interpretations: its own lens, and how well a text fits an embedding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..engine.decode import read_shared_part, read_under_surgery, resolved
from ..models.activations import capture
from ..models.families import decoder_layers
from ..models.forward import head_out, input_device, next_logits, read_out
from ..models.token_text import token_pieces
from ..models.tokenizer import Tokenizer
from ..prompts.index_selection import Selection
from ..runs.job import Job
from .queries import LensQuery

_ROWS = 64
"""States that are read out at once: `[rows, vocabulary]` logits."""


@torch.no_grad()
def lens_cells(model: nn.Module, tokenizer: Tokenizer, query: LensQuery) -> list[dict[str, Any]]:
    """The logit lens (nostalgebraist 2020): the k most probable tokens at each layer and token. Raises ValueError."""
    ids = query.token_ids(tokenizer)
    last = len(decoder_layers(model))
    layers = Selection.of(query.layers).resolve(last + 1)
    tokens = Selection.of(query.tokens).resolve(len(ids))
    states = capture(model, torch.tensor([ids], device=input_device(model)), layers, tokens)
    cells = []
    for layer, rows in zip(layers, states):
        read = head_out if layer == last else read_out
        best = [read(model, some).softmax(-1).topk(query.k) for some in rows.split(_ROWS)]
        ids_of = torch.cat([one.indices for one in best]).tolist()
        probabilities = torch.cat([one.values for one in best]).tolist()
        for token, its_ids, its_probabilities in zip(tokens, ids_of, probabilities):
            top = [
                {"text": "".join(token_pieces(tokenizer, [one])), "probability": round(probability, 6)}
                for one, probability in zip(its_ids, its_probabilities)
            ]
            cells.append({"layer": layer, "token": token, "top": top})
    return cells


@torch.no_grad()
def score_text(model: nn.Module, tokenizer: Tokenizer, job: Job, text: str) -> dict[str, Any]:
    """How probable a text is as the interpretation of the job's one cell, with its embedding and without.

    Its tokens are forced one by one after the interpretation prompt, in two rows, of which one has the embedding.

    Returns:
        the tokens, each with its two probabilities and its relevancy; and "log_ratio": log p(text with) − log p(text
        without), in nats. Raises ValueError.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    (ready,) = job.ready(job.plan.chunk(0))
    cell = resolved(ready.cell, model.dtype, job.settings)
    logits, cache = read_under_surgery(
        model, cell.prompt, [cell], job.settings, read_shared_part(model, cell.prompt), untouched=1
    )
    tokens, ratio = [], 0.0
    for number, (token, piece) in enumerate(zip(ids, token_pieces(tokenizer, ids))):
        logs = logits.float().log_softmax(-1)[:, token].tolist()
        with_it, without = (math.exp(one) for one in logs)
        ratio += logs[0] - logs[1]
        tokens.append({"text": piece, "probability": with_it, "without": without, "relevancy": abs(with_it - without)})
        if number < len(ids) - 1:
            step = torch.tensor([[token], [token]], device=input_device(model))
            logits, cache = next_logits(model, step, cache)
    return {"tokens": tokens, "log_ratio": ratio}
