"""Hooks on a module that act in this thread only: other threads running the same model see the plain one.

    with input_hook(layer, lambda hidden: 2 * hidden), output_hook(other_layer, seen.append):
        model(input_ids)

Nothing stays behind after success, error and interrupt; a hook that an interrupt left on the module does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Act = Callable[[Tensor], Tensor | None]
"""Receives a tensor; what it returns replaces that tensor, unless it is None."""


@contextmanager
def input_hook(module: nn.Module, act: Act) -> Iterator[None]:
    """Inside the context `act` is given the first argument of the module, or `hidden_states` where none has a place."""
    mine = _Mine()

    # Another thread may read from torch's table that this hook takes keywords, or that it is not there any more, just
    # as it is removed: then it is called without them.
    def before(_: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> tuple[tuple, dict] | None:
        if not mine.active() or kwargs is None:
            return None
        made = act(args[0] if args else kwargs["hidden_states"])
        if made is None:
            return None
        return ((made, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": made})

    with ExitStack() as stack:
        stack.callback(mine.end)
        stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield


@contextmanager
def output_hook(module: nn.Module, act: Act) -> Iterator[None]:
    """The same for its output, or the first part of it: attention returns weights too, experts their router's."""
    mine = _Mine()

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        if not mine.active():
            return None
        made = act(output[0] if isinstance(output, tuple) else output)
        return (made, *output[1:]) if isinstance(output, tuple) and made is not None else made

    with ExitStack() as stack:
        stack.callback(mine.end)
        stack.callback(module.register_forward_hook(after).remove)
        yield


class _Mine:
    """Whether the thread that made it runs now."""

    def __init__(self) -> None:
        self._thread: int | None = threading.get_ident()

    def active(self) -> bool:
        return threading.get_ident() == self._thread

    def end(self) -> None:
        self._thread = None
