"""A file of maps by source layer, checked against a model before its weights are loaded.

maps = MapsFile.read(Path("translator.safetensors"))
check_spaces(maps, n_layers=30, source_hidden=576, hidden=576)
maps.check_layers([24])
interpret(model, tokenizer, prompt, layers=24, mapping=maps.maps)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..prompts.index_selection import ALL
from .affine import AffineMap, MappingError, is_affine_map, map_vectors
from .probe import check_probe, read_probe
from .translator import Translator, load_maps

_BLOCK = 1 << 20
_REMEDY = "name a file that scripts/fit_translator.py has written"


@dataclass(frozen=True)
class MapsFile:
    """Maps by source layer, and where they come from."""

    path: Path
    maps: Mapping[int, Translator | AffineMap] | AffineMap
    """By source layer, ascending, one at least; or one affine map for every layer, as `AffineMap.save` writes it."""
    digest: str
    """Of all bytes of the file."""
    probe: tuple[float, ...] | None = None
    """By which the maps know their model, if the file says; see `probe`."""

    @classmethod
    def read(cls, path: Path) -> MapsFile:
        """Raises MappingError for a file of something else, or none."""
        try:
            maps = AffineMap.load(path) if is_affine_map(path) else load_maps(path)
            probe = read_probe(path)
        except MappingError as error:
            raise MappingError(f"mapping {error}; {_REMEDY}") from error
        if not maps:
            raise MappingError(f"mapping {path} is empty; {_REMEDY}")
        return cls(path, maps, _digest(path), probe)

    @property
    def layers(self) -> str:
        """Those that have a map, as a `Selection` takes them."""
        return ALL if isinstance(self.maps, AffineMap) else ",".join(map(str, self.maps))

    def check_model(self, model: nn.Module) -> None:
        """Raise MappingError if the file says that it is another model's, whatever the sizes. It needs the weights."""
        if self.probe is not None:
            check_probe(self.probe, model, f"mapping {self.path}")

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise MappingError naming those that have no map."""
        if isinstance(self.maps, AffineMap):
            return
        if missing := sorted(set(layers) - self.maps.keys()):
            raise MappingError(
                f"mapping {self.path} has no maps for layers {missing}, only for {list(self.maps)}: "
                "leave the others out of --layers"
            )


def check_spaces(maps: MapsFile | None, *, n_layers: int, source_hidden: int, hidden: int) -> None:
    """Raise MappingError if embeddings are of another space than the one they go into, and no map is from one to the
    other; or if maps are another model's.

    n_layers, source_hidden: of the model whose embeddings are read; hidden: of the one that interprets them.
    """
    if maps is None:
        if source_hidden == hidden:
            return
        raise MappingError(
            f"the source model's hidden size is {source_hidden} and the model's {hidden}: give maps from one to the "
            "other by source layer, --mapping FILE.safetensors (fit_affine fits one, translator.save_maps writes them)"
        )
    for layer in [None] if isinstance(maps.maps, AffineMap) else maps.maps:
        try:
            if layer is not None and not 0 <= layer <= n_layers:
                raise MappingError(f"the hidden states that are read are 0 to {n_layers}")
            map_vectors(maps.maps, torch.zeros(1, source_hidden), layer, hidden)
        except MappingError as error:
            which = "every layer" if layer is None else f"layer {layer}"
            raise MappingError(
                f"mapping {maps.path}, {which}: {error}; it is for another model: fit one for this, with "
                "scripts/fit_translator.py, or from another model's with fit_affine"
            ) from error


def _digest(path: Path) -> str:
    """Block by block: a large model's maps are gigabytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]
