"""Retrieval: is a vector's own label the most probable one, among many, behind the interpretation prompt?

    scores = label_scores(interpreter, vectors, layer, labels)         # [n, labels], nats
    estimate(hits(scores, right)), estimate(hits(shuffled(scores), right))

No outside model judges: the reader's own probabilities rank the labels. Raw ones prefer labels that are probable behind
any vector; `centred` takes that away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.cell import Cell
from ..engine.insertion import read_shared_part, read_under_surgery, resolved
from ..mapping.affine import map_vectors
from ..models.families import decoder_layers
from ..models.forward import input_device, next_logits
from ..models.kv_cache import select_rows
from ..models.layer_inputs import check_evaluation_mode
from ..models.layer_spec import SAME
from .interpreter import Interpreter


@torch.no_grad()
def label_scores(interpreter: Interpreter, vectors: Tensor, layer: int, labels: Sequence[str]) -> Tensor:
    """The log probability of each label, with the prompt's stop behind it, given each vector: `[n, labels]`, float32.

    vectors: `[n, hidden]`, of one source layer. Guidance has no part in it. Raises ValueError for a label without text.
    """
    model, prompt, settings = interpreter.model, interpreter.prompt, interpreter.settings
    check_evaluation_mode(model)
    stop = "" if prompt.stop is None else prompt.stop.text
    texts = [interpreter.tokenizer.encode(label + stop, add_special_tokens=False) for label in labels]
    if empty := [label for label, ids in zip(labels, texts) if not ids]:
        raise ValueError(f"label {empty[0]!r} is empty")
    mapped = map_vectors(interpreter.mapping, vectors, layer, vectors.shape[-1])
    depth = None if interpreter.mapping is not None else layer / len(decoder_layers(model))
    own = layer if settings.insert_layer == SAME else None
    shared, scores = read_shared_part(model, prompt), []
    for vector in mapped.to(vectors.dtype):
        cell = resolved(Cell(vector, prompt, own, depth=depth), model.get_input_embeddings().weight.dtype, settings)
        scores.append(_continued(model, texts, *read_under_surgery(model, prompt, [cell], settings, shared)))
    return torch.stack(scores)


def _continued(model: nn.Module, texts: Sequence[Sequence[int]], logits: Tensor, cache: Any) -> Tensor:
    """`[texts]`: of each behind one row whose logits `[1, vocabulary]` and cache these are."""
    found = logits.float().log_softmax(-1)[0, [ids[0] for ids in texts]].cpu()
    rows, at = list(range(len(texts))), [0] * len(texts)
    for step in range(1, max(map(len, texts))):
        at = [place for place, row in zip(at if step == 1 else range(len(rows)), rows) if len(texts[row]) > step]
        rows = [row for row in rows if len(texts[row]) > step]
        cache = select_rows(cache, torch.tensor(at))
        ids = torch.tensor([[texts[row][step - 1]] for row in rows], device=input_device(model))
        logits, cache = next_logits(model, ids, cache)
        likely = logits.float().log_softmax(-1).cpu()
        found[rows] += likely[range(len(rows)), [texts[row][step] for row in rows]]
    return found


def hits(scores: Tensor, right: Sequence[int], k: int = 1) -> list[bool]:
    """Whether the right label of each row of scores `[n, labels]` is among its k best. Ties count against it."""
    own = scores[range(len(right)), list(right)]
    return ((scores >= own[:, None]).sum(1) <= k).tolist()


def centred(scores: Tensor) -> Tensor:
    """Less the mean of each label's scores over the vectors."""
    return scores - scores.mean(0)


def shuffled(scores: Tensor) -> Tensor:
    """A control: to each vector the scores of one half-way further on."""
    return scores.roll(len(scores) // 2, 0)
