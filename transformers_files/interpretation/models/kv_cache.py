"""The caches of every transformers version behind a few operations: empty, size, repeat rows, select rows.

    cache = empty_cache(model)                       # what to pass with the first tokens
    out = model(input_ids, use_cache=True, **cache_beside(model, cache, input_ids))
    wide = repeat_rows(cache_in(out), 64)            # one prompt, 64 continuations
    rest = select_rows(wide, unfinished_rows)         # in any order, and as often as asked for

No operation changes the cache that it is given: the library appends to a cache object in place, so whoever shares one
prefix among several batches takes a new object from `repeat_rows` or `select_rows` for each.

Three representations exist. A *legacy* cache is a tuple of `(keys, values)` per layer: all of 4.34.0, and families that
came late to cache objects. The others are `DynamicCache` objects, whose inside has changed three times. Where all
layers hold keys and values alone they are made without a config, so that every layer keeps every position:
sliding-window families then mask by position instead of throwing positions away, and a row's cache never depends on how
it came to be.
Where some hold more (recurrent and convolution states, an indexer's keys) the config says which, and such a layer's
rows are taken apart by its own `reorder_cache`, which beam search relies on. A model without any of them gets a
`TextSoFar`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .families import UnsupportedModelError, base_model, forward_parameters, is_tested, written_class
from .text_so_far import TextSoFar

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
    if isinstance(cache, (tuple, list)):
        return _legacy_length(cache)
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):  # recurrent states alone
        if is_unused(cache):
            return 0
        raise UnsupportedModelError(
            f"the {type(cache).__name__} that was given holds recurrent states alone, which do not say how many "
            "positions they have seen; give the whole text, without a cache"
        ) from None


def says_length(cache: Any) -> bool:
    """Whether a cache knows how many positions it has seen; one of recurrent states alone does not."""
    if not hasattr(cache, "layers"):
        return isinstance(cache, (tuple, list)) or hasattr(cache, "get_seq_length")
    return not cache.layers or any(hasattr(layer, "get_seq_length") for layer in cache.layers)


def is_unused(cache: Any) -> bool:
    """Whether a cache of recurrent states has seen nothing yet."""
    if not hasattr(cache, "layers"):
        return int(getattr(cache, "seqlen_offset", 1)) == 0  # xLSTM's
    return not any(any(getattr(layer, "has_previous_state", {0: True}).values()) for layer in cache.layers)


def _legacy_length(cache: Any) -> int:
    if len(cache) == 0 or cache[0] is None:
        return 0
    first = cache[0]  # (key, value) of layer 0, or both in one tensor; Bloom's key has its axes swapped
    return (first if isinstance(first, torch.Tensor) else first[1]).shape[-2]


def empty_cache(model: nn.Module) -> Any:
    """What to pass as a cache with the first tokens; None where the model makes its own tuples."""
    base = base_model(model)
    if takes_no_cache(base):
        warnings.warn(
            f"{type(base).__name__} has no cache whose rows can be told apart; its whole text is read again for every "
            "token, which is slower",
            stacklevel=2,
        )
        return TextSoFar(model_caches=False)
    if DynamicCache is None or not getattr(model, "_supports_cache_class", True):
        return None
    made = _configured(model)
    return DynamicCache() if made is None or all(map(_is_plain, made.layers)) else made


def takes_no_cache(model: nn.Module) -> bool:
    """Whether a model takes no cache, or only one that nobody but itself understands."""
    own: Any = getattr(model, "_supports_default_dynamic_cache", None)  # of the class in some versions, not in all
    makes_tuples = not getattr(model, "_supports_cache_class", True)
    taken = forward_parameters(model)
    return not any(name in taken for name in NAMES) or (own is not None and not own() and not makes_tuples)


def _configured(model: nn.Module) -> Any:
    """A cache with a layer of the kind that each of the model's layers needs; None where the version has no kinds."""
    if "config" not in inspect.signature(DynamicCache.__init__).parameters:
        return None
    try:
        return DynamicCache(config=base_model(model).config)
    except (AttributeError, KeyError, TypeError):  # the library cannot say for this one: keys and values, then
        return None


def _is_plain(layer: Any) -> bool:
    """Whether a layer holds keys and values of positions, or nothing."""
    return type(layer).__name__ in ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")


def cache_beside(model: nn.Module, cache: Any, input_ids: torch.Tensor) -> dict[str, Any]:
    """The arguments of a pass over `[batch, sequence]` that say what came before: the cache, and a mask if need be."""
    return {
        _argument(written_class(base_model(model))): cache,
        **mask_beside(model, cache, input_ids),
        **_positions_beside(model, cache, input_ids),
    }


def _positions_beside(model: nn.Module, cache: Any, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions after a cache, for classes that `generate` always gives them: without, some count from 0 after a cache
    (Bamba), others from behind the padding's (RoBERTa)."""
    asks = "position_ids" in forward_parameters(base_model(model))
    if is_tested(model) or not asks or not (cache is None or says_length(cache)):
        return {}
    first = _first_position(model)
    if first is None:
        if not hasattr(cache, "layers"):
            return {}
        first = 0
    start = first + cached_length(cache)
    positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
    return {"position_ids": positions.repeat(len(input_ids), 1)}  # of its own memory: XGLM writes to it


def _first_position(model: nn.Module) -> int | None:
    """The position that `generate` gives the first token of a text: 0, or what a class of its own mind has instead
    (XLM-RoBERTa-XL on 4.57.6 counts from behind its padding's). None where it gives none, or cannot say without a cache
    of its own."""
    config, device = base_model(model).config, next(model.parameters()).device
    ids = torch.tensor([[int(getattr(config, "pad_token_id", None) == 0)]], device=device)  # anything but padding
    mask = torch.ones_like(ids)
    try:
        given = base_model(model).prepare_inputs_for_generation(ids, attention_mask=mask)
        return int(given["position_ids"][0, 0])
    except (AttributeError, KeyError, TypeError, IndexError):
        return None


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
    """Memory that a cache takes on each device, counted as if no two rows shared any."""
    sizes: dict[torch.device, int] = {}
    for states in _tensors(cache):
        sizes[states.device] = sizes.get(states.device, 0) + states.numel() * states.element_size()
    return sizes


def repeat_rows(cache: Any, rows: int) -> Any:
    """A new cache of `rows` copies of the only row. Copies are views: memory is taken when tokens are appended."""
    if isinstance(cache, TextSoFar):
        return cache.repeated(rows)
    return map_states(cache, torch.zeros(rows, dtype=torch.long), lambda states: states.expand(rows, *states.shape[1:]))


def select_rows(cache: Any, rows: torch.Tensor) -> Any:
    """A new cache of the given rows `[n]`, in that order; a row may be given several times."""
    return map_states(cache, rows, lambda states: states.index_select(0, rows.to(states.device)))


def map_states(cache: Any, rows: torch.Tensor, take: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A new cache of the same representation with the given rows `[n]`, of keys and values as `take` takes them."""
    if isinstance(cache, TextSoFar):
        return cache.selected(rows)
    if hasattr(cache, "layers") and not all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers):
        made = copy.copy(cache)
        made.layers = [_layer_of_rows(layer, rows, take) for layer in cache.layers]
        return made
    layers = [tuple(take(states) for states in layer) for layer in _layers(cache)]
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


def _layer_of_rows(layer: Any, rows: torch.Tensor, take: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """One layer of a cache whose layers differ."""
    made = copy.copy(layer)
    if type(layer).__name__ == "DynamicLayer":
        if layer.keys is not None:
            made.keys, made.values = take(layer.keys), take(layer.values)
        return made
    for name, value in vars(layer).items():
        if isinstance(value, dict):  # states by number: the copy gets its own
            setattr(made, name, dict(value))
    made.reorder_cache(rows)
    return made


def _tensors(cache: Any) -> list[torch.Tensor]:
    """Every tensor of a cache."""
    if isinstance(cache, TextSoFar):
        return [cache.read_ids]
    if not hasattr(cache, "layers"):
        return [states for layer in _layers(cache) for states in layer]
    held = [value for layer in cache.layers for value in vars(layer).values()]
    held += [part for value in held if isinstance(value, dict) for part in value.values()]
    return [value for value in held if isinstance(value, torch.Tensor) and value.ndim > 1]


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
