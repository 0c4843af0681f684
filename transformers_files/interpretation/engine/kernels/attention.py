"""Attention of one query per row on a CPU, several times faster than the fused kernel there.

    with FunctionOverrides({scaled_dot_product_attention: one_query_attention(memory.whole)}):
        model(next_tokens, use_cache=True, **cache_beside(model, cache, next_tokens))      # a decode step

The CPU's fused kernel is made for many queries. With one per row it costs, in bfloat16, more than all matrix multiplies
of a decode step together (256 rows, 52 positions, 9 query and 3 key/value heads: 12.8 ms a layer; as two batched
multiplies in which the query heads of one key/value head stand together: 1.0 ms; float32: 4.4 and 2.4 ms). Whatever
else a model does around attention (masks, scaling, caches) stays its own: only the call of the kernel is answered
differently. Other devices and longer queries keep the kernel; models that do not
use it, 4.34.0's among them, never notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def one_query_attention(whole: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """What answers `scaled_dot_product_attention` on a CPU with one query per row.

    whole: keys or values with the room behind them, if they have some (`GrowingBuffers.whole`). Batched multiplies
    would copy a part of a whole; of the whole they read a few positions more, which the softmax leaves out.
    """

    def answer(*args: Any, **kwargs: Any) -> Any:
        return attend(*args, **kwargs, whole=whole) if _answers(*args, **kwargs) else NotImplemented

    return answer


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
    *,
    whole: Callable[[Tensor], Tensor] = lambda states: states,
) -> Tensor:
    """Attention of one query per row and head; the arguments of `scaled_dot_product_attention`.

    query: `[batch, heads, 1, size]`; key, value: `[batch, key/value heads, sequence, size]`; attn_mask: broadcast to
    `[batch, heads, 1, sequence]`, bool (True: look) or added. Softmax in float32. Returns `[batch, heads, 1, size]`.
    """
    batch, heads, _, size = query.shape
    groups, length = key.shape[1:3]
    key, value = _with_room(key, value, whole)
    together = query.reshape(batch, groups, heads // groups, size) * (size**-0.5 if scale is None else scale)
    scores = torch.matmul(together, key.transpose(2, 3)).float()
    scores[..., length:] = float("-inf")
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=torch.float32).masked_fill(~attn_mask, float("-inf"))
        per_head = attn_mask.shape[-3] > 1 if attn_mask.ndim > 2 else False
        scores[..., :length] += attn_mask.reshape(-1, groups, heads // groups, length) if per_head else attn_mask
    return torch.matmul(scores.softmax(-1).to(value.dtype), value).reshape(batch, heads, 1, value.shape[-1])


def _with_room(key: Tensor, value: Tensor, whole: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The wholes of both, if they have the same room in their third dimension and none in another."""
    wholes = whole(key), whole(value)
    same = all(
        one.ndim == 4 and one.shape[:2] == part.shape[:2] and one.shape[3] == part.shape[3]
        for one, part in zip(wholes, (key, value))
    )
    return wholes if same and wholes[0].shape[2] == wholes[1].shape[2] else (key, value)
