"""From ``insert_info`` to a validated plan of what is written where.

``insert_info`` is a list with one dict per row of the batch; an empty dict leaves its row alone:

    {layer: (insert_locations, embedding),      # embedding [1, len(insert_locations), hidden]; any number of layers
     "replacing_mode": "normalized",            # or "addition"
     "overlay_strength": 1.0}                   # s: in [0, 1] for normalized, > 0 for addition

At the input of the layer, at each location: ``new = s * embedding + keep * old``, where ``keep`` is ``1 - s`` for
normalized and 1 for addition.
"""

from __future__ import annotations

import difflib
import math
import operator
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

REPLACING_MODES = ("normalized", "addition")
OPTIONS = ("replacing_mode", "overlay_strength")
IGNORED_PREFIX = "retrieve_"


@dataclass(frozen=True)
class LayerInsertion:
    """What is written at the input of one decoder layer; n vectors, one for each (row, position)."""

    rows: Tensor
    """[n], long, on the CPU: row of the batch"""
    positions: Tensor
    """[n], long, on the CPU: absolute column of the prompt"""
    vectors: Tensor
    """[n, hidden]: the embeddings to insert"""
    strength: Tensor
    """[n]: the factor of the inserted embedding"""
    keep: Tensor
    """[n]: the factor of the hidden state that was there"""

    def __post_init__(self) -> None:
        n = self.rows.shape[0]
        flat = (self.rows, self.positions, self.strength, self.keep)
        if n == 0 or any(tensor.shape != (n,) for tensor in flat) or self.vectors.ndim != 2 or len(self.vectors) != n:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (*flat, self.vectors))
            raise ValueError(f"rows, positions, strength, keep [n] and vectors [n, hidden] do not fit: {shapes}")


@dataclass(frozen=True)
class SurgeryPlan:
    """Everything that one `insert_info` asks for."""

    layers: Mapping[int, LayerInsertion]
    """decoder layer → what is written at its input"""
    batch_size: int
    """rows that the caller sees, before beams or several return sequences multiply them"""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a plan without a layer: do without surgery instead")
        for layer, insertion in self.layers.items():
            if not 0 <= int(insertion.rows.min()) <= int(insertion.rows.max()) < self.batch_size:
                raise ValueError(f"layer {layer}: a row outside the batch of {self.batch_size}")


@dataclass(frozen=True)
class _Prompt:
    """What the positions of `insert_info` are checked against."""

    length: int
    """columns of the prompt, those already in the cache included"""
    cached: int
    """columns already in the cache"""
    mask: Tensor | None
    """[batch, columns], on the CPU: False where the attention mask hides a column; aligned to the right"""

    def column(self, row: int, position: int) -> int:
        """The absolute column of a position; raises `ValueError` with the reason where nothing can be inserted."""
        column = position + self.length if position < 0 else position
        if not 0 <= column < self.length:
            raise ValueError(
                f"outside the prompt of {self.length} tokens; give 0 to {self.length - 1}, or -{self.length} to -1 "
                "counted from its end"
            )
        if column < self.cached:
            raise ValueError(
                f"already in the key/value cache, which holds {self.cached} tokens; insert where the cache is made, or "
                "at a later position"
            )
        if self.mask is not None:
            seen = column - max(0, self.length - self.mask.shape[1])
            if seen >= 0 and not self.mask[row, seen]:
                raise ValueError(
                    "masked by the attention mask (padding); left padding counts, so add its width to the position, "
                    "or count from the prompt's end"
                )
        return column


def plan_surgery(
    insert_info: Sequence[Mapping[Any, Any]] | None,
    *,
    n_layers: int,
    hidden_size: int,
    batch_size: int,
    prompt_length: int,
    cached_length: int = 0,
    attention_mask: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> SurgeryPlan | None:
    """Check `insert_info` and gather it by layer; None where it asks for nothing.

    prompt_length: columns of the prompt, the `cached_length` that are already in a cache included.
    attention_mask: [batch, columns], nonzero where a column counts; masks of other ranks are not looked at.
    dtype: the type that the embeddings will be cast to, so that an overflow is found here.
    Raises `ValueError` that names row, layer, position and remedy.
    """
    if insert_info is None:
        return None
    if isinstance(insert_info, (Mapping, str)) or not isinstance(insert_info, Sequence):
        raise ValueError(
            f"insert_info must be a list with one dict per row of the batch, not a {type(insert_info).__name__}; "
            "for a batch of one give [insert_info]"
        )
    if len(insert_info) != batch_size:
        raise ValueError(
            f"insert_info has {len(insert_info)} entries for a batch of {batch_size}; give one dict per row, {{}} "
            "for a row to leave alone"
        )
    mask = attention_mask.bool().cpu() if attention_mask is not None and attention_mask.ndim == 2 else None
    prompt = _Prompt(prompt_length, cached_length, mask)
    parts: dict[int, list[tuple[int, list[int], Tensor, float, float]]] = {}
    for row, info in enumerate(insert_info):
        try:
            layers = _layers_of(info, n_layers)
            if not layers:
                continue
            strength, keep = _factors(info)
            for layer, entry in layers.items():
                try:
                    columns, vectors = _entry(entry, row, prompt, hidden_size, dtype)
                except ValueError as error:
                    raise ValueError(f"layer {layer}, {error}") from None
                if columns:
                    parts.setdefault(layer, []).append((row, columns, vectors, strength, keep))
        except ValueError as error:
            raise ValueError(f"insert_info, row {row}: {error}") from None
    if not parts:
        return None
    return SurgeryPlan({layer: _stack(parts[layer]) for layer in sorted(parts)}, batch_size)


def _layers_of(info: Mapping[Any, Any], n_layers: int) -> dict[int, Any]:
    """The layer keys of one row as integers, every other key checked."""
    if not isinstance(info, Mapping):
        raise ValueError(f"a {type(info).__name__} where a dict is needed; {{}} leaves the row alone")
    layers = {}
    for key, value in info.items():
        if isinstance(key, str):
            _check_option(key)
            continue
        try:
            layer = operator.index(key)
        except TypeError:
            raise ValueError(
                f"key {reprlib.repr(key)} is neither a layer (an integer) nor one of {_listed(OPTIONS)}"
            ) from None
        if not 0 <= layer < n_layers:
            raise ValueError(f"layer {layer} is out of range; the model has decoder layers 0 to {n_layers - 1}")
        if layer in layers:
            raise ValueError(f"layer {layer} is given twice; give its positions in one entry")
        layers[layer] = value
    return layers


def _check_option(key: str) -> None:
    if key in OPTIONS or key.startswith(IGNORED_PREFIX):
        return
    if key.strip().lstrip("+-").isdecimal():
        raise ValueError(f"key {reprlib.repr(key)} is a string; give the layer as an integer: {key.strip()[:20]}")
    known = f"known are layers (integers), {_listed(OPTIONS)}"
    raise ValueError(f"unknown key {reprlib.repr(key)}{_suggestion(key, OPTIONS)}; {known}")


def _factors(info: Mapping[Any, Any]) -> tuple[float, float]:
    """(s, keep) of one row."""
    for option in OPTIONS:
        if option not in info:
            raise ValueError(f"{option} is missing; it is required wherever a layer is given")
    mode, given = info["replacing_mode"], info["overlay_strength"]
    if mode not in REPLACING_MODES:
        raise ValueError(
            f"unknown replacing_mode {reprlib.repr(mode)}{_suggestion(str(mode), REPLACING_MODES)}; known are "
            f"{_listed(REPLACING_MODES)}"
        )
    try:
        strength = float(given)
    except (TypeError, ValueError):
        raise ValueError(f"overlay_strength must be a number, not {reprlib.repr(given)}") from None
    if mode == "normalized":
        if not 0 <= strength <= 1:
            raise ValueError(f"overlay_strength {strength} must be in [0, 1] for normalized; use addition for more")
        return strength, 1 - strength
    if not 0 < strength < math.inf:
        raise ValueError(f"overlay_strength {strength} must be finite and > 0 for addition")
    return strength, 1.0


def _entry(
    entry: Any, row: int, prompt: _Prompt, hidden_size: int, dtype: torch.dtype | None
) -> tuple[list[int], Tensor]:
    """The columns and vectors [n, hidden] of one (row, layer)."""
    if not isinstance(entry, (tuple, list)) or len(entry) != 2:
        raise ValueError(f"a {type(entry).__name__} where (insert_locations, embedding) is needed")
    positions = _positions(entry[0])
    embedding = entry[1]
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        found = f"a tensor of {embedding.dtype}" if isinstance(embedding, Tensor) else f"a {type(embedding).__name__}"
        raise ValueError(f"the embedding must be a floating-point tensor, not {found}")
    wanted = (1, len(positions), hidden_size)
    if embedding.shape != wanted:
        raise ValueError(
            f"positions {positions}: the embedding has shape {list(embedding.shape)} and must have {list(wanted)}: "
            "[1, number of insert locations, hidden size]"
        )
    columns: dict[int, int] = {}
    for index, position in enumerate(positions):
        try:
            column = prompt.column(row, position)
            if column in columns:
                raise ValueError("given twice; give each position once")
            columns[column] = index
        except ValueError as error:
            raise ValueError(f"position {position}: {error}") from None
    finite = torch.isfinite(embedding.detach() if dtype is None else embedding.detach().to(dtype)).all(dim=-1)[0]
    if not bool(finite.all()):
        position = positions[int((~finite).nonzero()[0])]
        raise ValueError(
            f"position {position}: the embedding holds NaN or infinity"
            f"{'' if dtype is None else f' in {dtype}'}; check where it comes from"
        )
    return list(columns), embedding[0]


def _positions(locations: Any) -> list[int]:
    if isinstance(locations, Tensor):
        locations = locations.tolist()
    try:
        return [operator.index(location) for location in locations]
    except TypeError:
        raise ValueError(f"the insert locations must be a list of integers, not {reprlib.repr(locations)}") from None


def _stack(parts: list[tuple[int, list[int], Tensor, float, float]]) -> LayerInsertion:
    counts = torch.tensor([len(columns) for _, columns, *_ in parts])
    device = parts[0][2].device  # embeddings captured under a device map lie on several devices

    def per_part(values: list[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(counts)

    return LayerInsertion(
        rows=per_part([row for row, *_ in parts], torch.long),
        positions=torch.tensor([column for _, columns, *_ in parts for column in columns]),
        vectors=torch.cat([vectors.to(device) for _, _, vectors, *_ in parts]),
        strength=per_part([strength for *_, strength, _ in parts], torch.float64),
        keep=per_part([keep for *_, keep in parts], torch.float64),
    )


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)
