"""From ``insert_info`` to a validated plan of what is written where.

``insert_info`` is a list with one dict per row of the batch; an empty dict leaves its row alone:

    {layer: (insert_locations, embedding),      # integers or slices; embedding as below; any number of layers
     "replacing_mode": "normalized",            # one of those that `modes` defines
     "overlay_strength": 1.0}                   # s; or one per insert location; or either of them by layer: {layer: …}

A layer may be given by its name in other libraries: "resid_pre.10", "blocks.10.hook_resid_pre" and
"model.layers.10.input" are 10, and so are "resid_post.9" and its like: what one layer puts out is what the next is
given.

Other places than the input of a layer are given with their layer, ("mlp_output", 5): `places.WRITING_POINTS`. The
output of the last layer, before the final norm, is ("layer_output", n_layers - 1), and what the final norm returns and
the head is given ("final_norm", n_layers - 1).

An embedding is [1, len(insert_locations), hidden], or without its first dimension; one vector, [hidden], [1, hidden] or
[1, 1, hidden], goes into every location.

At the input of the layer, at each location: ``new = s * scale * embedding + keep * old``; `replacing` says what scale
and keep are in each mode.

Steering: the location "generated", alone or in the list, stands for every token that is generated after the prompt (of
it and of each location the embedding has one row). In place of the embedding a callable makes it, at every location,
out of the hidden states that are there: [n, hidden] → [n, hidden], in the type of the layer, rows of the batch
together.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors.suggestions import did_you_mean
from ..models.default_device import cpu_by_default
from .keys import OPTIONS, Site, called, layer_at, listed, site_of, sites_of
from .modes import REPLACING_MODES, ReplacingMode, has_norm, strengths_at, strengths_by_site
from .positions import GENERATED, Position, Prompt, positions_of

EmbeddingFunction = Callable[[Tensor], Tensor]
"""Hidden states [n, hidden] that are there → the embeddings to insert, [n, hidden]."""


@dataclass(frozen=True)
class LayerInsertion:
    """What is written at one site, such as the input of a decoder layer; n vectors, one for each (row, position)."""

    rows: Tensor
    """[n], long, on the CPU: row of the batch"""
    positions: Tensor
    """[n], long, on the CPU: absolute column"""
    vectors: Tensor
    """[n, hidden]: the embeddings to insert"""
    strength: Tensor
    """[n]: the factor of the inserted embedding"""
    keep: Tensor
    """[n]: the factor of the hidden state that was there"""
    norm_matched: Tensor
    """[n], bool, on the CPU: whether the embedding is scaled to the norm of the hidden state that was there"""
    onward: Tensor
    """[n], bool, on the CPU: whether all columns after the position are meant too"""
    functions: tuple[tuple[EmbeddingFunction, Tensor], ...] = ()
    """those that make embeddings of the hidden states that are there, with [n], bool: which of them"""

    def __post_init__(self) -> None:
        n = self.rows.shape[0]
        flat = (self.rows, self.positions, self.strength, self.keep, self.norm_matched, self.onward)
        if n == 0 or any(tensor.shape != (n,) for tensor in flat) or self.vectors.ndim != 2 or len(self.vectors) != n:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (*flat, self.vectors))
            names = "rows, positions, strength, keep, norm_matched, onward [n] and vectors [n, hidden]"
            raise ValueError(f"{names} do not fit: {shapes}")

    def within(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Which of the vectors go into a pass over `count` columns from `first` on, and at which columns: [m] each."""
        end = first + count
        entries = ((self.positions < end) & (self.onward | (self.positions >= first))).nonzero()[:, 0]
        starts = self.positions[entries].clamp(min=first)
        counts = torch.where(self.onward[entries], end - starts, 1)
        before = (counts.cumsum(0) - counts).repeat_interleave(counts)
        columns = starts.repeat_interleave(counts) + torch.arange(len(before), device=before.device) - before
        return entries.repeat_interleave(counts), columns


@dataclass(frozen=True)
class SurgeryPlan:
    """Everything that one `insert_info` asks for."""

    layers: Mapping[Site, LayerInsertion]
    """decoder layer → what is written at its input; or another site of it, as `keys` describes them"""
    batch_size: int
    """rows that the caller sees, before beams or several return sequences multiply them"""
    generates: bool = False
    """whether tokens are generated after the prompt"""
    cached_length: int = 0
    """columns of the prompt that are in a cache before the first pass"""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a plan without a layer: do without surgery instead")
        for site, insertion in self.layers.items():
            if not 0 <= int(insertion.rows.min()) <= int(insertion.rows.max()) < self.batch_size:
                raise ValueError(f"{called(site)}: a row outside the batch of {self.batch_size}")


@dataclass(frozen=True)
class _Part:
    """What one row inserts at one layer, checked."""

    row: int
    columns: list[int]
    onward: list[bool]
    vectors: Tensor
    """[len(columns), hidden]; zeros where a function makes them"""
    function: EmbeddingFunction | None
    strengths: list[float]
    mode: ReplacingMode


@cpu_by_default
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
    generates: bool = False,
) -> SurgeryPlan | None:
    """Check `insert_info` and gather it by layer; None where it asks for nothing.

    prompt_length: columns of the prompt, the `cached_length` that are already in a cache included.
    attention_mask: [batch, columns], nonzero where a column counts; masks of other ranks are not looked at.
    dtype: the type that the embeddings will be cast to, so that an overflow is found here.
    generates: whether tokens are generated after the prompt.
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
    prompt = Prompt(prompt_length, cached_length, mask, generates)
    parts: dict[Site, list[_Part]] = {}
    for row, info in enumerate(insert_info):
        try:
            sites = sites_of(info, n_layers)
            if not sites:
                continue
            mode, strengths = _mode_and_strengths(info, sites, n_layers)
            for site, entry in sites.items():
                try:
                    positions, vectors, function = _entry(entry, hidden_size, prompt_length)
                    columns, factors = prompt.columns(row, positions), strengths_at(strengths[site], len(positions))
                    onward = [position == GENERATED for position in positions]
                    part = _Part(row, columns, onward, vectors, function, factors, mode)
                    _check(part, positions, dtype)
                except ValueError as error:
                    raise ValueError(f"{called(site)}, {error}") from None
                if positions:
                    parts.setdefault(site, []).append(part)
        except ValueError as error:
            raise ValueError(f"insert_info, row {row}: {error}") from None
    if not parts:
        return None
    stacked = {site: _stack(parts[site]) for site in sorted(parts, key=lambda site: (layer_at(site), str(site)))}
    return SurgeryPlan(stacked, batch_size, generates, cached_length)


def _mode_and_strengths(
    info: Mapping[Any, Any], sites: Iterable[Site], n_layers: int
) -> tuple[ReplacingMode, dict[Site, Any]]:
    """The mode of one row, and what it says about the strength at each site."""
    for option in OPTIONS:
        if option not in info:
            raise ValueError(f"{option} is missing; it is required wherever a layer is given")
    name = info["replacing_mode"]
    if not isinstance(name, str) or name not in REPLACING_MODES:
        raise ValueError(
            f"unknown replacing_mode {reprlib.repr(name)}{did_you_mean(str(name), REPLACING_MODES)}; known are "
            f"{listed(REPLACING_MODES)}"
        )
    given = info["overlay_strength"]
    if isinstance(given, Mapping):
        given = _by_site(given, n_layers)
    return REPLACING_MODES[name], strengths_by_site(given, sites)


def _by_site(given: Mapping[Any, Any], n_layers: int) -> dict[Site, Any]:
    try:
        by_site = {site_of(key, n_layers): strength for key, strength in given.items()}
    except ValueError as error:
        raise ValueError(f"the keys of overlay_strength must be those of the embeddings: {error}") from None
    if len(by_site) < len(given):
        raise ValueError(f"overlay_strength has two entries for one of {listed(map(called, by_site))}")
    return by_site


def _entry(entry: Any, hidden_size: int, prompt_length: int) -> tuple[list[Position], Tensor, EmbeddingFunction | None]:
    """The positions and vectors [n, hidden] of one (row, layer), and what makes the vectors where it is a callable."""
    if not isinstance(entry, (tuple, list)) or len(entry) != 2:
        raise ValueError(f"a {type(entry).__name__} where (insert_locations, embedding) is needed")
    positions = positions_of(entry[0], prompt_length)
    embedding = entry[1]
    if callable(embedding) and not isinstance(embedding, Tensor):
        return positions, torch.zeros(len(positions), hidden_size), embedding
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        found = f"a tensor of {embedding.dtype}" if isinstance(embedding, Tensor) else f"a {type(embedding).__name__}"
        raise ValueError(f"the embedding must be a floating-point tensor or a callable, not {found}")
    return positions, _vectors(embedding, positions, hidden_size), None


def _vectors(embedding: Tensor, positions: Sequence[Position], hidden_size: int) -> Tensor:
    """One vector for each position, [n, hidden]."""
    shape, n = tuple(embedding.shape), len(positions)
    if shape in ((1, n, hidden_size), (n, hidden_size)):
        return embedding.reshape(n, hidden_size)
    if shape in ((1, 1, hidden_size), (1, hidden_size), (hidden_size,)):
        return embedding.reshape(1, hidden_size).expand(n, hidden_size)
    raise ValueError(
        f"positions {positions}: the embedding has shape {list(shape)} and must have {[1, n, hidden_size]} or "
        f"{[n, hidden_size]}: [number of insert locations, hidden size]; or {[hidden_size]}, one for all of them"
    )


def _check(part: _Part, positions: Sequence[Position], dtype: torch.dtype | None) -> None:
    """Raise for the first strength out of range, and for the first embedding that cannot go in as the model's type."""
    for position, strength in zip(positions, part.strengths):
        if problem := part.mode.strength_problem(strength):
            raise ValueError(f"position {position}: overlay_strength {strength} {problem}")
    if part.function is not None:
        return
    vectors, where = part.vectors.detach(), "" if dtype is None else f" in {dtype}"
    vectors = vectors if dtype is None else vectors.to(dtype)
    finite = torch.isfinite(vectors).all(dim=-1)
    if not bool(finite.all()):
        position = positions[_first_false(finite)]
        raise ValueError(f"position {position}: the embedding holds NaN or infinity{where}; check where it comes from")
    if part.mode.matches_norm and not bool((scalable := has_norm(vectors)).all()):
        raise ValueError(
            f"position {positions[_first_false(scalable)]}: the embedding is zero, or its norm out of range{where}; "
            f"{part.mode.name} needs a direction to scale"
        )


def _first_false(flags: Tensor) -> int:
    return int((~flags).nonzero()[0])


def _stack(parts: list[_Part]) -> LayerInsertion:
    counts = torch.tensor([len(part.columns) for part in parts])
    device = parts[0].vectors.device  # embeddings captured under a device map lie on several devices
    strengths = [(part.mode, strength) for part in parts for strength in part.strengths]
    functions = {id(part.function): part.function for part in parts if part.function is not None}
    return LayerInsertion(
        rows=torch.tensor([part.row for part in parts]).repeat_interleave(counts),
        positions=torch.tensor([column for part in parts for column in part.columns]),
        vectors=torch.cat([part.vectors.to(device) for part in parts]),
        strength=torch.tensor([strength for _, strength in strengths], dtype=torch.float64),
        keep=torch.tensor([mode.keep(strength) for mode, strength in strengths], dtype=torch.float64),
        norm_matched=torch.tensor([mode.matches_norm for mode, _ in strengths]),
        onward=torch.tensor([onward for part in parts for onward in part.onward]),
        functions=tuple(
            (function, torch.tensor([part.function is function for part in parts]).repeat_interleave(counts))
            for function in functions.values()
        ),
    )
