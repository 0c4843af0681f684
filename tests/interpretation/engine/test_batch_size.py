"""The batch size from a budget, and halving when memory runs out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from tiny_models import tiny_model
from transformers.interpretation.engine import batch_size as memory
from transformers.interpretation.engine import decode as engine
from transformers.interpretation.engine.batch_size import (
    MOST_AT_ONCE,
    OutOfMemoryWarning,
    free_memory,
    give_back_freed_memory,
    in_batches,
    is_out_of_memory,
)
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk, resolve_batch_size
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

PROMPT = InterpretationPrompt("test", (1, 9, 30, 31, 12), (2,), "")
SETTINGS = InterpretationSettings(max_new_tokens=5)
MESSAGE = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def test_more_memory_more_rows(llama):
    sizes = [resolve_batch_size(llama, [PROMPT], SETTINGS, memory=memory) for memory in (0, 10**5, 10**6, 10**12)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    assert sizes[-1] == MOST_AT_ONCE
    assert all(size & (size - 1) == 0 for size in sizes), "powers of two"


def test_longer_prompts_and_texts_fewer_rows(llama):
    long = InterpretationPrompt("long", tuple(range(1, 100)), (2,), "")
    short = resolve_batch_size(llama, [PROMPT], SETTINGS, memory=10**6)
    assert resolve_batch_size(llama, [PROMPT, long], SETTINGS, memory=10**6) < short
    assert resolve_batch_size(llama, [PROMPT], InterpretationSettings(max_new_tokens=90), memory=10**6) < short


def test_the_default_budget(llama):
    assert 1 <= resolve_batch_size(llama, [PROMPT], SETTINGS) <= MOST_AT_ONCE
    assert free_memory(torch.device("cpu")) > 0


def test_the_estimate_covers_what_the_cache_takes(llama):
    """Twice the final cache, since selecting rows holds the old and the new one, of two rows per cell."""
    memory = 10**6
    rows = resolve_batch_size(llama, [PROMPT], SETTINGS, memory=memory)
    config = llama.config
    per_position = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * 8
    assert rows * 2 * 2 * per_position * (len(PROMPT.input_ids) + SETTINGS.max_new_tokens) <= memory


def test_the_device_with_the_least_room_decides(llama, monkeypatch):
    """Devices that run layers hold their part of the cache each; here as if three of four layers ran elsewhere."""
    free = {"cpu": 10**12, "meta": 10**12}
    monkeypatch.setattr(memory, "free_memory", lambda device: free[device.type])
    monkeypatch.setattr(memory, "_SHARE", {})
    monkeypatch.setattr(
        memory, "bytes_by_device", lambda cache: {torch.device("cpu"): 2**10, torch.device("meta"): 3 * 2**10}
    )
    assert resolve_batch_size(llama, [PROMPT], SETTINGS) == MOST_AT_ONCE
    free["meta"] = 2 * 10**6
    few = resolve_batch_size(llama, [PROMPT], SETTINGS)
    assert few < MOST_AT_ONCE
    free |= {"cpu": 4 * 10**6, "meta": 10**12}  # the same room where less of the cache lies
    assert few < resolve_batch_size(llama, [PROMPT], SETTINGS) <= MOST_AT_ONCE
    monkeypatch.setattr(memory, "largest_offloaded", lambda model: 10**7)
    assert resolve_batch_size(llama, [PROMPT], SETTINGS) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_halving(limit):
    seen = []

    def work(items):
        if len(items) > limit:
            raise RuntimeError(MESSAGE)
        seen.append(len(items))
        return [item * 10 for item in items]

    with pytest.warns(OutOfMemoryWarning) if limit < 23 else nullcontext():
        assert in_batches(work, list(range(23)), 64) == [item * 10 for item in range(23)]
    assert max(seen) <= limit


def test_nothing_left_to_halve():
    def work(items):
        raise MemoryError("all gone")

    with pytest.raises(MemoryError, match="all gone"), pytest.warns(OutOfMemoryWarning, match="3 rows at once"):
        in_batches(work, [1, 2, 3], 4)


def test_other_errors_are_no_reason_to_halve():
    calls = []

    def work(items):
        calls.append(items)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_batches(work, [1, 2, 3], 3)
    assert len(calls) == 1


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError(MESSAGE))
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def test_a_chunk_goes_on_after_running_out_of_memory(llama):
    vectors = torch.randn(10, llama.config.hidden_size, generator=torch.Generator().manual_seed(0))
    cells = [Cell(vector, PROMPT) for vector in vectors]
    expected = interpret_chunk(llama, cells, SETTINGS, batch_size=2)

    def refuse_many(module, args):
        if args[0].shape[0] > 3 and args[0].shape[1] > 1:  # the prompt for two cells, and one row without surgery
            raise RuntimeError(MESSAGE)

    handle = llama.get_input_embeddings().register_forward_pre_hook(refuse_many)
    try:
        with pytest.warns(OutOfMemoryWarning):
            found = interpret_chunk(llama, cells, SETTINGS, batch_size=8)
    finally:
        handle.remove()
    assert found == expected


def test_freed_memory_is_given_back_where_the_c_library_can(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_malloc_trim", lambda: lambda kept: asked.append(kept) or 1)
    give_back_freed_memory()
    assert asked == [0], "nothing is kept"
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    give_back_freed_memory()


def test_a_chunk_gives_freed_memory_back(llama, monkeypatch):
    steps = []
    monkeypatch.setattr(engine, "give_back_freed_memory", lambda: steps.append(1))
    interpret_chunk(llama, [Cell(torch.ones(llama.config.hidden_size), PROMPT)], SETTINGS, batch_size=1)
    assert steps
