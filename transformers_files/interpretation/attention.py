"""Attention of one query per row on a CPU, several times faster than the fused kernel there.

    with Answers({scaled_dot_product_attention: one_query_attention}):
        model(next_tokens, past_key_values=cache, use_cache=True)      # a decode step

The CPU's fused kernel is made for many queries. With one per row it costs, in bfloat16, more than all matrix multiplies
of a decode step together (256 rows, 52 positions, 9 query and 3 key/value heads: 12.8 ms a layer; as two batched
multiplies in which the query heads of one key/value head stand together: 1.0 ms; float32: 4.4 and 2.4 ms). Whatever
else a model does around attention (masks, scaling, caches) stays its own: only the call of the kernel is answered
differently. Other devices and longer queries keep the kernel; models that do not
use it, 4.34.0's among them, never notice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def one_query_attention(*args: Any, **kwargs: Any) -> Any:
    """Answers `scaled_dot_product_attention` on a CPU with one query per row."""
    return attend(*args, **kwargs) if _answers(*args, **kwargs) else NotImplemented


def _answers(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> bool:
    return query.device.type == "cpu" and query.ndim == 4 and query.shape[2] == 1 and not is_causal and not dropout_p


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of one query per row and head; the arguments of `scaled_dot_product_attention`.

    query: `[batch, heads, 1, size]`; key, value: `[batch, key/value heads, sequence, size]`; attn_mask: broadcast to
    `[batch, heads, 1, sequence]`, bool (True: look) or added. Softmax in float32. Returns `[batch, heads, 1, size]`.
    """
    batch, heads, _, size = query.shape
    groups = key.shape[1]
    together = query.reshape(batch, groups, heads // groups, size) * (size**-0.5 if scale is None else scale)
    scores = torch.matmul(together, key.transpose(2, 3)).float()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=torch.float32).masked_fill(~attn_mask, float("-inf"))
        per_head = attn_mask.shape[-3] > 1 if attn_mask.ndim > 2 else False
        scores = scores + (attn_mask.reshape(-1, groups, heads // groups, key.shape[2]) if per_head else attn_mask)
    return torch.matmul(scores.softmax(-1).to(value.dtype), value).reshape(batch, heads, 1, value.shape[-1])
