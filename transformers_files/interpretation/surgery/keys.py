"""The keys of a row of `insert_info`: where something is inserted, options, and whatever else a program carries along.

A *site* is where: a layer (an integer, its input), or a hook point and its layer, `("mlp_output", 5)`.
"""

from __future__ import annotations

import operator
import reprlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors.suggestions import did_you_mean
from ..models.layer_names import named_layer
from ..models.places import FINAL_NORM, LAYER_OUTPUT, RESIDUAL, WRITING_POINTS

Site = int | tuple[str, int]

OPTIONS = ("replacing_mode", "overlay_strength")
IGNORED_PREFIX = "retrieve_"


def sites_of(info: Mapping[Any, Any], n_layers: int) -> dict[Site, Any]:
    """What one row inserts, by site; every other key checked."""
    if not isinstance(info, Mapping):
        raise ValueError(f"a {type(info).__name__} where a dict is needed; {{}} leaves the row alone")
    sites: dict[Site, Any] = {}
    for key, value in info.items():
        if isinstance(key, str) and named_layer(key) is None:
            _check_option(key)
            continue
        site = site_of(key, n_layers)
        if site in sites:
            raise ValueError(f"{called(site)} is given twice; give its positions in one entry")
        sites[site] = value
    return sites


def site_of(key: Any, n_layers: int) -> Site:
    """The site that a key names. What a layer puts out is what the next one is given: one site, that of the next."""
    if isinstance(key, (tuple, list)) and len(key) == 2:
        place, layer = key[0], _index(key[1], key)
        if place not in WRITING_POINTS:
            raise ValueError(
                f"key {reprlib.repr(key)}: {reprlib.repr(place)} is no place in a layer; use one of "
                f"{', '.join(WRITING_POINTS)}"
            )
    else:
        named = named_layer(key) if isinstance(key, str) else None
        place, layer = RESIDUAL, _index(key, key) if named is None else named.index
        if named is not None and named.is_output:
            place, layer = LAYER_OUTPUT, layer - 1
    if not 0 <= layer < n_layers:
        raise ValueError(f"layer {layer} is out of range; the model has decoder layers 0 to {n_layers - 1}")
    if place == FINAL_NORM and layer != n_layers - 1:
        raise ValueError(
            f"{called((place, layer))}: the final norm follows the last decoder layer alone; give layer {n_layers - 1}"
        )
    if place == LAYER_OUTPUT and layer < n_layers - 1:
        return layer + 1
    return layer if place == RESIDUAL else (place, layer)


def called(site: Site) -> str:
    """A site as messages name it."""
    return f"layer {site}" if isinstance(site, int) else f"{site[0]} of layer {site[1]}"


def layer_at(site: Site) -> int:
    """The decoder layer of a site."""
    return site if isinstance(site, int) else site[1]


def place_of(site: Site) -> str:
    """Where in that layer."""
    return RESIDUAL if isinstance(site, int) else site[0]


def _index(given: Any, key: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise ValueError(
            f"key {reprlib.repr(key)} is neither a layer (an integer), nor a place and its layer "
            f'(("mlp_output", 5)), nor one of {listed(OPTIONS)}'
        ) from None


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
