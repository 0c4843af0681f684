"""The kernels of this folder for one decode loop, or none of them.

    LLM_INTERPRET_KERNELS=0 python …        # every function as torch has it

The switch is for whoever doubts a number: texts are the same with and without, probabilities to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...models.kv_cache import select_rows
from .attention import one_query_attention
from .kv_buffers import GrowingBuffers
from .linear import one_dnn_linear
from .overrides import FunctionOverrides

VARIABLE = "LLM_INTERPRET_KERNELS"

SelectRows = Callable[[Any, torch.Tensor], Any]
"""From a cache and row numbers to a cache of these rows; the cache that is given must not be used again."""


def are_used() -> bool:
    """Unless the variable is 0. Raises ValueError for anything but 0 and 1, which would be a misspelt switch."""
    given = os.environ.get(VARIABLE, "1")
    if given not in ("0", "1"):
        raise ValueError(f"{VARIABLE} is {given!r}: set it to 0 to leave every function as torch has it, or to 1")
    return given == "1"


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` or `module.compile` was called on a model, a module in it, or a module's forward."""
    return any(
        getattr(module, "_compiled_call_impl", None) is not None  # since torch 2.2
        or hasattr(module, "_orig_mod")
        or hasattr(module.forward, "_torchdynamo_orig_callable")
        for module in model.modules()
    )


@contextmanager
def row_selection(model: nn.Module) -> Iterator[SelectRows]:
    """How a decode loop selects rows of its cache; within, torch's functions are answered by the kernels.

    Not in a model of which a part is compiled: the compiler would trace the kernels in place of what they answer.
    """
    if not are_used() or is_compiled(model):
        yield select_rows
        return
    memory = GrowingBuffers()
    attention = {functional.scaled_dot_product_attention: one_query_attention(memory.whole)}
    with FunctionOverrides({**attention, functional.linear: one_dnn_linear, torch.cat: memory.append}):
        yield memory.select_rows
