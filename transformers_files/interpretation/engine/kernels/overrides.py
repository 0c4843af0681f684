"""Functions of torch answered differently inside a context, in this thread alone.

    with FunctionOverrides({torch.cat: memory.append, functional.linear: one_dnn_linear}):
        model(next_tokens, use_cache=True, **cache_beside(model, cache, next_tokens))

So a faster way on one kind of machine serves every family and version without a word in their code. One context for
all: each costs a microsecond per call of any function of torch, 2 % of a decode step of the embedded model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode, _get_current_function_mode


class FunctionOverrides(TorchFunctionMode):
    """Context, for one use, in which functions are answered by others; where these return NotImplemented, as ever."""

    def __init__(self, answers: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._answers = dict(answers)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        answer = self._answers.get(func)
        if answer is not None and (result := answer(*args, **kwargs)) is not NotImplemented:
            return result
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        """Leave, and answer nothing from now on.

        For each call torch sets the context aside; an interrupt at that moment may lose it, so that another one is on
        top, and put it back when its traceback is dropped, long after this.
        """
        self._answers.clear()
        if _get_current_function_mode() is self:
            super().__exit__(*error)
