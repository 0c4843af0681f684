"""Key/value caches of every transformers version behind few verbs: empty, size, repeat rows, select rows.

    cache = empty_cache(model)                       # what to pass with the first tokens
    out = model(input_ids, use_cache=True, **cache_beside(model, cache, input_ids))
    wide = repeat_rows(cache_in(out), 64)            # one prompt, 64 continuations
    rest = select_rows(wide, rows_that_go_on)        # in any order, and as often as asked for

A verb never changes the cache that it is given: the library appends to a cache object in place, so whoever shares one
prefix among several batches takes a new object from `repeat_rows` or `select_rows` for each.

Two representations exist. A *legacy* cache is a tuple of `(keys, values)` per layer: all of 4.34.0, and families that
came late to cache objects. The others are `DynamicCache` objects, whose inside has changed three times. The engine
makes them without a config, so that every layer keeps every position: sliding-window families then mask by position
instead of throwing positions away, and a row's cache never depends on how it came to be.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .families import UnsupportedModelError, base_model

try:
    from transformers.cache_utils import DynamicCache
except ImportError:  # before 4.36 there are only tuples
    DynamicCache = None

Layers = list[tuple[torch.Tensor, ...]]
"""Keys and values of each layer, each `[batch, key/value heads, sequence, head size]`; one tensor with both in it for
some older multi-query families. Rows come first in all."""


NAMES = ("cache", "past_key_values")
"""What a model calls its cache, among its arguments and in its output: the first from 5.24 on."""


def cache_in(given: Mapping[str, Any]) -> Any:
    """The cache among a model's arguments by name, or in its output; None where there is none."""
    return next((given[name] for name in NAMES if name in given and given[name] is not None), None)


def cached_length(cache: Any) -> int:
    """Columns that a key/value cache of any tested version holds."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    if len(cache) == 0 or cache[0] is None:
        return 0
    first = cache[0]  # (key, value) of layer 0, or both in one tensor; Bloom's key has its axes swapped
    return (first if isinstance(first, torch.Tensor) else first[1]).shape[-2]


def empty_cache(model: nn.Module) -> Any:
    """What to pass as a cache with the first tokens; None where the model makes its own tuples."""
    if DynamicCache is None or not getattr(model, "_supports_cache_class", True):
        return None
    return DynamicCache()


def cache_beside(model: nn.Module, cache: Any, input_ids: torch.Tensor) -> dict[str, Any]:
    """The arguments of a pass over `[batch, sequence]` that say what came before: the cache, and a mask if need be."""
    cls: Any = type(base_model(model))
    return {_argument(cls): cache, **mask_beside(model, cache, input_ids)}


@functools.cache
def _argument(cls: Any) -> str:
    """By which name a model of this class takes a cache."""
    taken = inspect.signature(cls.forward).parameters
    return next((name for name in NAMES if name in taken), NAMES[-1])


def mask_beside(model: nn.Module, cache: Any, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a pass over `[batch, sequence]` needs beside the cache.

    Families that make their masks themselves (most up to 4.53, few up to 5.0) may count its columns by the tokens of
    the pass (Gemma 2 and Cohere 2 on 4.48.3), or one too many (StableLM on 5.0.0), unless they are given one.
    """
    own_masks = any(hasattr(type(module), "_update_causal_mask") for module in model.modules())
    if not own_masks or not hasattr(cache, "get_seq_length"):
        return {}
    columns = cache.get_seq_length() + input_ids.shape[1]
    return {"attention_mask": input_ids.new_ones(len(input_ids), columns)}


def check_window(model: nn.Module, positions: int) -> None:
    """Refuse sequences longer than a sliding window where the library's caches know nothing of windows.

    4.34.0 applies the window in a pass over many tokens and forgets it in a decode step. Caches that are lists of
    layers, from 4.54 on, come with masks that are right in both.
    """
    window = getattr(model.config, "sliding_window", None)
    if window is not None and positions > window and not hasattr(empty_cache(model), "layers"):
        raise UnsupportedModelError(
            f"{positions} tokens of interpretation prompt and text are more than the sliding window of {window}, "
            "which this version of transformers does not keep to exactly; use a shorter prompt or fewer new tokens, or "
            "transformers 4.54 or later"
        )


def bytes_by_device(cache: Any) -> dict[torch.device, int]:
    """Memory that the keys and values take on each device, counted as if no two rows shared any."""
    sizes: dict[torch.device, int] = {}
    for layer in _layers(cache):
        for states in layer:
            sizes[states.device] = sizes.get(states.device, 0) + states.numel() * states.element_size()
    return sizes


def repeat_rows(cache: Any, rows: int) -> Any:
    """A new cache of `rows` copies of the only row. Copies are views: memory is taken when tokens are appended."""
    return map_states(cache, lambda states: states.expand(rows, *states.shape[1:]))


def select_rows(cache: Any, rows: torch.Tensor) -> Any:
    """A new cache of the given rows `[n]`, in that order; a row may be given several times."""
    return map_states(cache, lambda states: states.index_select(0, rows.to(states.device)))


def map_states(cache: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A new cache of the same representation, with every tensor of keys and of values changed."""
    layers = [tuple(change(states) for states in layer) for layer in _layers(cache)]
    if isinstance(cache, (tuple, list)):
        return tuple(layer[0] if isinstance(old, torch.Tensor) else layer for old, layer in zip(cache, layers))
    made = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        if hasattr(made, "layers"):  # they copy what they are given: of no position there is nothing to copy
            made.update(keys[..., :0, :], values[..., :0, :], index)
            made.layers[index].keys, made.layers[index].values = keys, values
        else:
            made.update(keys, values, index)
    return made


def _layers(cache: Any) -> Layers:
    if isinstance(cache, (tuple, list)):
        layers = [(layer,) if isinstance(layer, torch.Tensor) else tuple(layer[:2]) for layer in cache]
        if any(len(layer) == 2 and layer[0].ndim == 3 for layer in layers):
            raise UnsupportedModelError(
                "this version of transformers keeps rows and heads of this family's key/value cache in one dimension, "
                "so that its rows cannot be told apart; transformers 4.57 or later keeps them apart"
            )
        return layers
    if hasattr(cache, "layers"):  # from 4.54 on
        return [(layer.keys, layer.values) for layer in cache.layers if getattr(layer, "keys", None) is not None]
    return list(zip(cache.key_cache, cache.value_cache))
