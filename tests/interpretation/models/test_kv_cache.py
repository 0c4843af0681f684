"""Operations on key/value caches: continuing from a cache that was made equals reading the whole sequence."""

from __future__ import annotations

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.kv_cache import (
    bytes_by_device,
    cache_beside,
    cache_in,
    empty_cache,
    repeat_rows,
    select_rows,
)

# The older layout of Bloom's cache has no dimension of its own for rows.
REFUSED = {"bloom"} & {family.model_type for family in available_families() if empty_cache(tiny_model("bloom")) is None}
FAMILIES = [family.model_type for family in available_families() if family.model_type not in REFUSED]
BEGINNINGS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])


@torch.no_grad()
def read(model, ids, cache):
    out = model(input_ids=ids, use_cache=True, **cache_beside(model, cache, ids))
    return out.logits[:, -1], cache_in(out)


@torch.no_grad()
def whole(model, rows):
    return torch.stack([model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1] for row in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_selected_rows_go_on_as_if_read_whole(family):
    model = tiny_model(family)
    _, cache = read(model, BEGINNINGS, empty_cache(model))
    kept = select_rows(cache, torch.tensor([2, 0, 2]))
    logits, _ = read(model, torch.tensor([[20], [21], [22]]), kept)
    expected = whole(model, [[13, 14, 15, 16, 20], [5, 6, 7, 8, 21], [13, 14, 15, 16, 22]])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repeated_prefix_goes_on_and_stays_as_it_was(family):
    model = tiny_model(family)
    _, prefix = read(model, BEGINNINGS[:1], empty_cache(model))
    before = bytes_by_device(prefix)
    for _ in range(2):  # the second time would see tokens of the first if they shared anything
        logits, _ = read(model, torch.tensor([[20, 21], [22, 23]]), repeat_rows(prefix, 2))
        expected = whole(model, [[5, 6, 7, 8, 20, 21], [5, 6, 7, 8, 22, 23]])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert bytes_by_device(prefix) == before


def test_size():
    model = tiny_model("llama")
    _, cache = read(model, BEGINNINGS, empty_cache(model))
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    expected = 2 * config.num_hidden_layers * config.num_key_value_heads * head * BEGINNINGS.numel() * 4
    assert bytes_by_device(cache) == {torch.device("cpu"): expected}
    five = repeat_rows(select_rows(cache, torch.tensor([1])), 5)
    assert bytes_by_device(five) == {torch.device("cpu"): expected * 5 // 3}


def test_an_empty_cache_holds_nothing():
    model = tiny_model("llama")
    cache = empty_cache(model)
    assert cache is None or not bytes_by_device(cache)


if REFUSED:  # an empty set of parameters would be a skipped test

    @pytest.mark.parametrize("family", sorted(REFUSED))
    def test_a_layout_without_rows_is_refused(family):
        model = tiny_model(family)
        _, cache = read(model, BEGINNINGS, empty_cache(model))
        with pytest.raises(UnsupportedModelError, match="its rows cannot be told apart"):
            select_rows(cache, torch.tensor([0]))
        with pytest.raises(UnsupportedModelError, match="its rows cannot be told apart"):
            repeat_rows(cache, 3)
