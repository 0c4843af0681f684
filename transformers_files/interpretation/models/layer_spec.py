"""Where in the model an interpreted embedding goes in: one decoder layer, several at once, or the one it came from."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from .layer_names import named_layer

SAME: Final = "same"

InsertLayer = int | tuple[int, ...] | Literal["same"]
"""A decoder layer; several, ascending, that all get the embedding; or for each embedding the one it came from."""


def insert_layer_of(given: Any) -> InsertLayer:
    """From what a user writes: 1, [1, 3], "same", a name (`layer_names`), or the text of one of them.

    Raises `ValueError`.
    """
    several = given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
    if several == [SAME]:
        return SAME
    try:
        layers = sorted(_layer_of(layer) for layer in several)
    except (TypeError, ValueError):
        layers = []
    if not layers:
        raise ValueError(f"insert_layer is {reprlib.repr(given)}: give a decoder layer, several (1,3), or {SAME}")
    if layers[0] < 0:
        raise ValueError(f"insert_layer is {insert_layer_text(given)}: count decoder layers from 0")
    if len(set(layers)) < len(layers):
        raise ValueError(f"insert_layer is {insert_layer_text(given)}: name each layer once")
    return layers[0] if len(layers) == 1 else tuple(layers)


def _layer_of(given: Any) -> int:
    if not isinstance(given, str):
        return operator.index(given)
    named = named_layer(given)
    return int(given) if named is None else named.index


def insert_layer_text(layer: Any) -> str:
    """As the command line and the CSV have it: 1 or 1,3 or same."""
    return ",".join(map(str, layer)) if isinstance(layer, (tuple, list)) else str(layer)
