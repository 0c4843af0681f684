"""How many rows fit into memory at once, and what happens when they do not."""

from __future__ import annotations

import ctypes
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..models.families import decoder_layers
from ..models.forward import input_device, next_logits
from ..models.kv_cache import bytes_by_device, empty_cache
from ..prompts.interpretation_prompt import InterpretationPrompt

T = TypeVar("T")
R = TypeVar("R")

MOST_AT_ONCE = 256
"""More cells than this are hardly faster: a grid of 496 took 2 to 8 % less time at once than 256 at a time (135 million
parameters, two CPU cores, bfloat16), and four tenths more memory."""

_ROWS_PER_CELL = 2
"""At most: one under surgery, one without."""

_SHARE = {"cpu": 0.25, "cuda": 0.7}
"""Part of the free memory that is used; a CPU's is shared with everything else that runs."""


class OutOfMemoryWarning(UserWarning):
    """Fewer rows are decoded at once than asked for."""


def rows_that_fit(
    model: nn.Module, prompts: Sequence[InterpretationPrompt], max_new_tokens: int, *, memory: int | None = None
) -> int:
    """Cells that can be decoded at once, a power of two, so that a little more or less free memory changes nothing.

    memory: bytes to use on each device; by default a share of what is free there now. Each device that runs layers
    holds their part of the cache, and for a while the weights of an offloaded one.
    """
    longest = max(len(prompt.input_ids) for prompt in prompts)
    start = torch.tensor([prompts[0].input_ids[:1]], device=input_device(model))
    with torch.no_grad():
        logits, cache = next_logits(model, start, empty_cache(model))
    element = logits.element_size()
    hidden = model.get_input_embeddings().weight.shape[-1]
    working = 2 * logits.shape[-1] * max(element, 4)
    working += 16 * longest * hidden * element  # what one layer holds while it reads the prompt
    cells = MOST_AT_ONCE
    for device, cached in bytes_by_device(cache).items():
        row = 2 * (longest + max_new_tokens) * cached + working  # selecting rows holds the old and the new cache
        budget = int(free_memory(device) * _SHARE.get(device.type, 0.5)) if memory is None else memory
        cells = min(cells, (budget - largest_offloaded(model)) // (_ROWS_PER_CELL * row))
    return 1 << (max(1, cells).bit_length() - 1)


def largest_offloaded(model: nn.Module) -> int:
    """Bytes of the largest part whose weights accelerate keeps elsewhere, and brings to a device when it runs."""
    parts = [*decoder_layers(model), model.get_input_embeddings(), model.get_output_embeddings()]
    return max(
        sum(weight.numel() * weight.element_size() for weight in part.parameters() if weight.device.type == "meta")
        for part in parts
    )


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken now. On Linux a container's limit counts."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    free = [
        int(line.split()[1]) * 1024
        for line in (Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else [])
        if line.startswith("MemAvailable:")
    ]
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        free.append(int(most) - int(used.read_text()))
    return max(0, min(free, default=4 << 30))


def give_back_freed_memory() -> None:
    """Return to the system what the C library keeps of freed memory: with glibc, up to 32 MB in every gap.

    Costs some milliseconds. Without it a decode loop, whose tensors are never twice of one size, held 1.7 GB where
    1.5 GB were in use.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def in_batches(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], batch_size: int) -> list[R]:
    """`work` on `batch_size` items at a time; the size is halved whenever memory runs out, down to one item."""
    results: list[R] = []
    while len(results) < len(items):
        try:
            results += work(items[len(results) : len(results) + batch_size])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or batch_size == 1:
                raise
            tried = min(batch_size, len(items) - len(results))
            batch_size = max(1, tried // 2)
            text = f"out of memory with {tried} rows at once; continuing with {batch_size}"
            warnings.warn(text, OutOfMemoryWarning, stacklevel=2)
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, could not give what was asked for."""
    kinds = (MemoryError, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
