"""The beginning of a prompt, read once for many rows; for models that allow it.

    beginning = read_beginning(model, prompt_ids, 12)                     # of the first 12 tokens
    logits, cache = next_logits(model, rest, repeat_rows(beginning, 64))

The tested families do. Of others it is measured with the very prompt: reading it in two parts, repeating and selecting
rows must give the logits that the library's own cached decoding gives of one row. Prefix-LM attention (both ways within
the prompt), recurrent layers that start anew in a pass over several tokens, and caches whose rows cannot be taken apart
do not: they read the whole prompt in every row, or the whole text in every step. That is slower, and a warning says so.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .families import UnsupportedModelError, is_tested
from .forward import input_device, next_logits
from .kv_cache import empty_cache, repeat_rows, select_rows
from .sending import sent
from .text_so_far import TextSoFar

_FLOAT32_TOLERANCE, _TOLERANCE = 5e-3, 0.25
"""Of the logits' standard deviation: far above rounding, far below what a lost beginning makes of them."""

_ASKED: weakref.WeakKeyDictionary[nn.Module, dict[tuple[tuple[int, ...], int], tuple[bool, bool]]]
_ASKED = weakref.WeakKeyDictionary()
"""A model is asked once about each prompt: what it answers hangs on its kind alone, and a run has many chunks."""


@torch.no_grad()
def read_beginning(model: nn.Module, input_ids: Sequence[int], first: int) -> Any:
    """What came before token `first` of a prompt, for `repeat_rows`; None where an empty cache serves."""
    ids = sent(torch.tensor([list(input_ids)], device="cpu"), input_device(model))
    beginning = ids[:, :first]
    if is_tested(model):
        return next_logits(model, beginning, empty_cache(model))[1] if first else None
    empty = empty_cache(model)
    if isinstance(empty, TextSoFar):
        return empty.grown_to(beginning)
    allowed = _ASKED.setdefault(model, {})
    if (tuple(input_ids), first) not in allowed:
        allowed[tuple(input_ids), first] = _allows(model, ids, first)
    by_rows, in_parts = allowed[tuple(input_ids), first]
    if not by_rows:
        _warn(model, "its cache cannot be taken apart by rows: the whole text is read again for every token")
        return TextSoFar(beginning, model_caches=False)
    if not first:
        return None
    if not in_parts:
        _warn(model, "the beginning of a prompt cannot be read on its own: each row reads all of it")
        return TextSoFar(beginning)
    return next_logits(model, beginning, empty_cache(model))[1]


def _allows(model: nn.Module, ids: Tensor, first: int) -> tuple[bool, bool]:
    """Whether the model's cache can be taken apart by rows, and whether the beginning can be read on its own, too."""
    expected = _tried(lambda: _alone(model, ids))
    if expected is None or not _same(_tried(lambda: _as_second_row(model, ids)), expected):
        return False, False
    return True, bool(first) and _same(_tried(lambda: _in_parts(model, ids, first)), expected)


def _alone(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits `[2, vocabulary]` after the prompt and after one more token, as the library's own decoding makes them."""
    first, cache = next_logits(model, ids, empty_cache(model))
    return torch.cat([first, next_logits(model, ids[:, -1:], cache)[0]])


def _as_second_row(model: nn.Module, ids: Tensor) -> Tensor:
    """The same with a row of other tokens in front, which then leaves."""
    first, cache = next_logits(model, torch.cat([ids.flip(1), ids]), empty_cache(model))
    cache = select_rows(cache, torch.tensor([1]))
    return torch.cat([first[1:], next_logits(model, ids[:, -1:], cache)[0]])


def _in_parts(model: nn.Module, ids: Tensor, first: int) -> Tensor:
    """The same with the beginning read on its own, and repeated."""
    cache = repeat_rows(next_logits(model, ids[:, :first], empty_cache(model))[1], 2)
    rest = ids[:, first:]
    after, cache = next_logits(model, torch.cat([rest.flip(1), rest]), cache)
    cache = select_rows(cache, torch.tensor([1]))
    return torch.cat([after[1:], next_logits(model, ids[:, -1:], cache)[0]])


def _tried(work: Callable[[], Tensor]) -> Tensor | None:
    """None where the model's own code does not go along: it raises whatever it happens to raise."""
    try:
        return work()
    except UnsupportedModelError:
        raise
    except Exception:
        return None


def _same(found: Tensor | None, expected: Tensor) -> bool:
    if found is None:
        return False
    tolerance = _FLOAT32_TOLERANCE if expected.dtype in (torch.float32, torch.float64) else _TOLERANCE
    away = (found.float() - expected.float()).abs().amax(-1)
    return bool((away <= tolerance * expected.float().std(-1).clamp_min(1e-6)).all())


def _warn(model: nn.Module, what: str) -> None:
    warnings.warn(f"{type(model).__name__}: {what}, which is slower", stacklevel=3)
