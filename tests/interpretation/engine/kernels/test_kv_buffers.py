"""Caches in recycled memory hold what caches in new memory hold."""

from __future__ import annotations

import errno
import random

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.engine.kernels import kv_buffers as recycling
from transformers.interpretation.engine.kernels.kv_buffers import GrowingBuffers
from transformers.interpretation.engine.kernels.overrides import FunctionOverrides
from transformers.interpretation.models.kv_cache import cache_beside, cache_in, empty_cache, select_rows

# The older layout of Bloom's cache has no dimension of its own for rows.
REFUSED = {"bloom"} & {family.model_type for family in available_families() if empty_cache(tiny_model("bloom")) is None}
FAMILIES = [family.model_type for family in available_families() if family.model_type not in REFUSED]


@torch.no_grad()
def decode(model, select) -> torch.Tensor:
    """Logits of steps in which rows leave, come twice and change places, or all stay."""
    dice = random.Random(0)
    cache, ids, steps = empty_cache(model), torch.arange(20, 32).reshape(4, 3), []
    for step in range(8):
        out = model(input_ids=ids, use_cache=True, **cache_beside(model, cache, ids))
        steps.append(out.logits[:, -1])
        cache, rows = cache_in(out), len(ids)
        if step != 4:
            kept = torch.tensor([dice.randrange(rows) for _ in range(dice.randrange(2, 9))])
            cache, rows = select(cache, kept), len(kept)
        ids = torch.tensor([[dice.randrange(10, 90)] for _ in range(rows)])
    return torch.cat(steps)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_says_the_same(family):
    model = tiny_model(family)
    expected = decode(model, select_rows)
    memory = GrowingBuffers()
    with FunctionOverrides({torch.cat: memory.append}):
        found = decode(model, memory.select_rows)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_memory_is_used_again():
    memory = GrowingBuffers()
    states, new = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 1, 4)
    held = [memory._select(states, torch.arange(3)) for _ in range(2)]
    addresses = {one.data_ptr() for one in held}
    for _ in range(11):
        for index, one in enumerate(held):
            before = one.clone()
            held[index] = memory.append([one, new], dim=-2)
            assert torch.equal(held[index], torch.cat([before, new], dim=-2))
            addresses.add(held[index].data_ptr())
    assert held[0].shape == (3, 2, 16, 4)
    assert len(addresses) == 3, "as many as there are tensors, and a spare one"


def test_room_is_used_in_place_and_holds_zeros():
    memory = GrowingBuffers()
    states, new = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 1, 4)
    memory._give_back(memory._select(torch.full((3, 2, 40, 4), torch.nan), torch.arange(3)))  # used memory
    grown = memory.append([memory._select(states, torch.arange(3)), new], 2)
    for length in (7, 8):
        longer = memory.append([grown, new], 2)
        assert longer.shape[2] == length
        assert longer.data_ptr() == grown.data_ptr()
        grown = longer
    assert memory.whole(grown).shape == grown.shape, "no room left"
    moved = memory.append([grown, new], 2)
    assert moved.data_ptr() != grown.data_ptr()
    expected = torch.cat([states, new, new, new, new, torch.zeros(3, 2, 7, 4)], 2)
    assert torch.equal(memory.whole(moved), expected)
    fewer = memory._select(moved, torch.tensor([2, 0]))
    assert fewer.shape == (2, 2, 9, 4)
    assert torch.equal(memory.whole(fewer), expected[[2, 0]])
    assert memory.append([fewer, fewer], 0) is NotImplemented, "rows"


def test_a_larger_cache_finds_larger_memory():
    memory = GrowingBuffers()
    states = torch.randn(2, 2, 5, 4)
    few = memory._select(states, torch.tensor([0]))
    many = memory._select(few.clone(), torch.zeros(500, dtype=torch.long))
    assert torch.equal(many, states[:1].expand(500, -1, -1, -1))


def test_what_is_not_answered():
    memory = GrowingBuffers()
    states, new = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 1, 4)
    assert memory.append([states, new], -2) is NotImplemented, "not of these caches"
    taken = memory._select(states, torch.arange(3))
    assert memory.append([new, taken], 2) is NotImplemented
    part = taken[:, :, :2]
    assert memory.append([part, new], 2) is NotImplemented, "a part that begins where the whole does"
    assert memory.whole(part) is part
    assert memory.append([taken, new, new], 2) is NotImplemented
    assert memory.append([taken, new], 2, out=torch.empty(0)) is NotImplemented


def test_a_map_that_the_system_refuses_is_out_of_memory(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(recycling.mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="no map of 1,920 bytes for keys and values"):
        GrowingBuffers()._select(torch.randn(3, 2, 5, 4), torch.arange(3))
