"""Counts how often the host waits for a device, without having one.

    with Waits() as waits:
        interpret_chunk(model.to("meta"), cells, settings, batch_size=4)
    waits.reads        # how often the host read from the device

The device is torch's "meta", whose tensors hold no numbers: whatever needs a number (`.item()`, `.tolist()`, `nonzero`,
an index by a mask, a condition) fails there. Explicit copies to the host are answered by a tensor that the test makes,
and counted; copies from the host are counted where the host would wait for them. What the library's own code waits for
is not counted: its passes without a cache ask whether texts are packed, and its masks are made of numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")


def each_its_own(states: torch.Tensor) -> torch.Tensor:
    """What a device could have held: rising numbers along the last dimension, so that every row gets its own token."""
    rising = torch.arange(states.shape[-1]).to(states.dtype)
    return rising.expand(states.shape).clone()


def by_the_library() -> bool:
    """Whether the innermost code of the package that runs is not the patch's."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        # overrides.py sees every call on its way to torch, the library's too
        if "/transformers/" in file and not file.endswith("/engine/kernels/overrides.py"):
            return "/transformers/interpretation/" not in file
        frame = frame.f_back
    return False


class Waits:
    """Reads from the meta device, blocking writes to it, and what ran between two reads."""

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor] = each_its_own) -> None:
        self.answer = answer
        self.reads = 0
        self.blocking_writes: list[str] = []
        self.operations = [0]
        """On the device, before each read and behind the last."""
        self.allocated = [0]
        """Which of them made a tensor of its own memory."""

    def __enter__(self) -> Waits:
        self._stack = ExitStack()
        # The library's rotary embeddings leave autocasting of their device, which "meta" has none of.
        plain = torch.autocast
        autocast = mock.patch.object(
            torch, "autocast", lambda device_type, **how: plain(device_type.replace("meta", "cpu"), **how)
        )
        self._stack.enter_context(autocast)
        asked = torch.is_autocast_enabled
        enabled = mock.patch.object(
            torch, "is_autocast_enabled", lambda *device: asked(*(name.replace("meta", "cpu") for name in device))
        )
        self._stack.enter_context(enabled)
        self._stack.enter_context(_Dispatched(self))
        self._stack.enter_context(_Called(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()


class _Dispatched(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = args[0] if args and isinstance(args[0], torch.Tensor) else None
        name, device = str(func.overloadpacket), kwargs.get("device")
        if name == "aten._to_copy" and given is not None and device is not None and given.device != device:
            if given.device == META:
                self.waits.reads += 1
                self.waits.operations.append(0)
                self.waits.allocated.append(0)
                return self.waits.answer(given)
            if not kwargs.get("non_blocking") and not by_the_library():
                self.waits.blocking_writes.append(name)
        if name == "aten._local_scalar_dense" and given is not None and given.device == META and by_the_library():
            return given.dtype == torch.bool
        made = func(*args, **kwargs)
        if isinstance(made, torch.Tensor) and made.device == META:
            self.waits.operations[-1] += 1
            self.waits.allocated[-1] += all(part.alias_info is None for part in func._schema.returns)
        return made


class _Called(TorchFunctionMode):
    """`torch.tensor(numbers, device=…)` waits, and is not dispatched."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sends = func in (torch.tensor, torch.as_tensor) and made.device == META and made.numel() > 0
        if sends and not by_the_library():
            self.waits.blocking_writes.append(func.__name__)
        return made
