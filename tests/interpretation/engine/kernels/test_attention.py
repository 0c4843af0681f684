"""Attention of one query per row against the library's kernel and against a loop over heads."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from torch.nn.functional import scaled_dot_product_attention
from transformers.interpretation.engine.kernels import attention
from transformers.interpretation.engine.kernels.attention import one_query_attention
from transformers.interpretation.engine.kernels.overrides import FunctionOverrides
from transformers.interpretation.models.kv_cache import cache_beside, cache_in

ATTENTION = {scaled_dot_product_attention: one_query_attention(lambda states: states)}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head_by_head(query, key, value, mask=None, scale=None):
    out = torch.empty(*query.shape[:3], value.shape[-1])
    per_group = query.shape[1] // key.shape[1]
    for row in range(query.shape[0]):
        for head in range(query.shape[1]):
            keys, values = key[row, head // per_group], value[row, head // per_group]
            scores = (query[row, head, 0] @ keys.T) * (query.shape[-1] ** -0.5 if scale is None else scale)
            if mask is not None:
                full = mask.expand(query.shape[0], query.shape[1], 1, key.shape[2])[row, head, 0]
                scores = scores.masked_fill(~full, float("-inf")) if mask.dtype == torch.bool else scores + full
            out[row, head, 0] = scores.softmax(-1) @ values
    return out


MASKS = {
    "none": None,
    "bool, one for all heads": random(3, 1, 1, 7, seed=5) > -0.8,
    "added, one per head": random(3, 6, 1, 7, seed=6),
    "added, one for all rows": random(1, 1, 1, 7, seed=7),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_one_query(mask, groups, scale):
    query, key, value = random(3, 6, 1, 8), random(3, groups, 7, 8, seed=1), random(3, groups, 7, 4, seed=2)
    repeated = [states.repeat_interleave(6 // groups, dim=1) for states in (key, value)]
    expected = head_by_head(query, key, value, mask, scale)
    with FunctionOverrides(ATTENTION):
        grouped = attention.attend(query, key, value, attn_mask=mask, scale=scale)
        repeated_first = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=scale)
    torch.testing.assert_close(grouped, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(repeated_first, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_room_behind_keys_and_values_is_not_looked_at(mask):
    query, key, value = random(3, 6, 1, 8), random(3, 2, 7, 8, seed=1), random(3, 2, 7, 4, seed=2)
    wholes = {id(states): torch.cat([states, torch.zeros_like(states[:, :, :5])], 2) for states in (key, value)}
    read = []

    def whole(states: torch.Tensor) -> torch.Tensor:
        read.append(states)
        return wholes[id(states)]

    found = one_query_attention(whole)(query, key, value, attn_mask=mask)
    assert len(read) == 2
    torch.testing.assert_close(found, head_by_head(query, key, value, mask), atol=1e-6, rtol=1e-5)


def test_room_that_does_not_fit_is_left_alone():
    query, key, value = random(3, 6, 1, 8), random(3, 2, 7, 8, seed=1), random(3, 2, 7, 4, seed=2)
    expected = head_by_head(query, key, value)
    longer, wider = torch.cat([key, key], 2), torch.cat([key, key], 3)
    for wrong in (longer, wider, key.flatten()):  # the values have no room; room in another dimension; no dimensions
        found = attention.attend(
            query, key, value, whole=lambda states, wrong=wrong: wrong if states is key else states
        )
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_which_calls_are_answered(monkeypatch):
    answered = []
    original = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *args, **kwargs: answered.append(1) or original(*args, **kwargs))
    key = random(2, 4, 5, 8)

    def calls(*args, **kwargs) -> int:
        answered.clear()
        scaled_dot_product_attention(*args, **kwargs)
        return len(answered)

    with FunctionOverrides(ATTENTION):
        assert calls(key[:, :, :1], key, key) == 1
        assert calls(key[:, :, :2], key, key) == 0, "two queries"
        assert calls(key[:, :, :1], key, key, is_causal=True) == 0, "the kernel's own idea of causal"
        assert calls(key[:, :, :1], key, key, dropout_p=0.5) == 0, "training"
    assert calls(key[:, :, :1], key, key) == 0, "outside the context"


@torch.no_grad()
def test_a_decode_step_says_the_same():
    model = tiny_model("llama")
    ids = torch.arange(10, 22).reshape(2, 6)
    step = torch.tensor([[3], [4]])
    first, again = (cache_in(model(ids, use_cache=True)) for _ in range(2))  # a pass appends to the cache it is given
    expected = model(step, use_cache=True, **cache_beside(model, first, step)).logits
    with FunctionOverrides(ATTENTION):
        found = model(step, use_cache=True, **cache_beside(model, again, step)).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
