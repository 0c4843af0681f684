"""The write itself: vectors into the hidden states of a pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.sending import sent
from .insert_info import EmbeddingFunction, LayerInsertion
from .modes import has_norm, norms


def write(hidden: Tensor, at: LayerInsertion, entries: Tensor, columns: Tensor, copies: int) -> Tensor:
    """One indexed write, out of place: the caller's tensors stay, and gradients flow through both operands.

    entries, columns: [m], what of `at` is written, and where in this pass. Mixes in float32 (float64 for a float64
    model) and rounds once to the type of the layer.
    """
    exact = torch.promote_types(hidden.dtype, torch.float32)
    copy = torch.arange(copies, device=entries.device).repeat(len(entries))
    entries, columns = entries.repeat_interleave(copies), columns.repeat_interleave(copies)
    where = (sent(at.rows[entries] * copies + copy, hidden.device), sent(columns, hidden.device))
    strength, keep = (sent(factor[entries].to(exact), hidden.device).unsqueeze(-1) for factor in (at.strength, at.keep))
    there = hidden[where]
    vectors = sent(at.vectors[sent(entries, at.vectors.device)], hidden.device, hidden.dtype)
    for function, made in at.functions:
        vectors = _made(function, made[entries].to(hidden.device), there, vectors)
    old, vectors = there.to(exact), vectors.to(exact)
    matched = at.norm_matched[entries]
    if bool(matched.any()):
        if at.functions and not bool(has_norm(vectors[matched.to(vectors.device)]).all()):
            raise ValueError("a callable of insert_info made a zero embedding: no direction to scale to a norm")
        strength = strength * _scale(old, vectors, sent(matched, hidden.device).unsqueeze(-1))
    kept = torch.where(keep == 0, 0.0, keep * old)  # 0 · infinity would be NaN
    return hidden.index_put(where, (strength * vectors + kept).to(hidden.dtype))


def _made(function: EmbeddingFunction, which: Tensor, there: Tensor, vectors: Tensor) -> Tensor:
    """The vectors [m, hidden] with those of `which` [m] made by a function of the states that are there [m, hidden]."""
    if not bool(which.any()):
        return vectors
    made = function(there[which])
    if not isinstance(made, Tensor) or made.shape != there[which].shape:
        found = f"{list(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise ValueError(
            f"a callable of insert_info made {found} of hidden states {list(there[which].shape)}; it must make an "
            "embedding of each: the same shape"
        )
    if not bool(torch.isfinite(made.detach().to(vectors.dtype)).all()):
        raise ValueError(f"a callable of insert_info made an embedding with NaN or infinity in {vectors.dtype}")
    return vectors.index_put((which,), made.to(vectors))


def _scale(old: Tensor, vectors: Tensor, matched: Tensor) -> Tensor:
    """‖old‖ / ‖vector‖ [n, 1] where `matched` [n, 1], else 1, without a gradient that is NaN where a vector is zero."""
    return torch.where(matched, norms(old) / norms(torch.where(matched, vectors, 1.0)), 1.0)
