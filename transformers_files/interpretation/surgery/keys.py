"""The keys of a row of `insert_info`: layers, options, and whatever else a program carries along."""

from __future__ import annotations

import operator
import reprlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors.suggestions import did_you_mean
from ..models.layer_names import named_layer

OPTIONS = ("replacing_mode", "overlay_strength")
IGNORED_PREFIX = "retrieve_"


def layers_of(info: Mapping[Any, Any], n_layers: int) -> dict[int, Any]:
    """The layer keys of one row as integers, every other key checked."""
    if not isinstance(info, Mapping):
        raise ValueError(f"a {type(info).__name__} where a dict is needed; {{}} leaves the row alone")
    layers = {}
    for key, value in info.items():
        named = named_layer(key) if isinstance(key, str) else None
        if isinstance(key, str) and named is None:
            _check_option(key)
            continue
        try:
            layer = operator.index(key) if named is None else named.index
        except TypeError:
            raise ValueError(
                f"key {reprlib.repr(key)} is neither a layer (an integer) nor one of {listed(OPTIONS)}"
            ) from None
        if not 0 <= layer < n_layers:
            raise ValueError(f"layer {layer} is out of range; the model has decoder layers 0 to {n_layers - 1}")
        if layer in layers:
            raise ValueError(f"layer {layer} is given twice; give its positions in one entry")
        layers[layer] = value
    return layers


def _check_option(key: str) -> None:
    """Raise for a key that was probably meant to be another; warn of one that means nothing here."""
    if key in OPTIONS or key.startswith(IGNORED_PREFIX):
        return
    if key.strip().lstrip("+-").isdecimal():
        raise ValueError(f"key {reprlib.repr(key)} is a string; give the layer as an integer: {key.strip()[:20]}")
    known = f"known are layers (integers), {listed(OPTIONS)}"
    if suggestion := did_you_mean(key, OPTIONS):
        raise ValueError(f"unknown key {reprlib.repr(key)}{suggestion}; {known}")
    warnings.warn(f"insert_info: key {reprlib.repr(key)} is ignored; {known}", stacklevel=2)


def listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"
