"""How cells are interpreted where a client does not say: by the package's defaults, or as a published reader does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..engine.settings import DEFAULT_PROMPT, DEFAULTS
from ..mapping.affine import AnyMap
from ..mapping.checkpoint import MapsFile
from ..models.adapters import Adapter
from ..models.tokenizer import Tokenizer
from ..prompts.index_selection import ALL
from ..prompts.interpretation_prompt import BUILT_IN, InterpretationPromptSpec
from ..readers.reader import Reader

SETTINGS: Mapping[str, Any] = {
    "interpretation_prompt": DEFAULT_PROMPT,
    "insert_layer": DEFAULTS.insert_layer,
    "replacing_mode": DEFAULTS.replacing_mode,
    "overlay_strength": DEFAULTS.overlay_strength,
    "guidance": DEFAULTS.guidance,
    "plausibility": DEFAULTS.plausibility,
    "deep_gain": DEFAULTS.deep_gain,
    "max_new_tokens": DEFAULTS.max_new_tokens,
}
"""By the names of a query's fields."""


@dataclass(frozen=True)
class Defaults:
    """What a server was started with."""

    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    """Of the fields that a client leaves out."""
    layers: str = ALL
    prompts: Mapping[str, InterpretationPromptSpec] = field(default_factory=lambda: BUILT_IN)
    """Interpretation prompts that a client may name."""
    mapping: AnyMap = None
    """What embeddings go through first, whatever a client says."""
    maps: MapsFile | None = None
    """The file of the mapping, where it is one of the user's."""
    adapter: Adapter | None = None
    """On while the model interprets, off while it reads."""
    reader: Reader | None = None
    reader_name: str = ""
    """As `find_reader` takes it."""

    @classmethod
    def of_maps(cls, maps: MapsFile | None, adapter: Adapter | None, layers: str | None = None) -> Defaults:
        """The package's settings, with maps and an adapter where there are some. layers: None: those of the maps."""
        own = layers or (ALL if maps is None else maps.layers)
        return cls(layers=own, mapping=None if maps is None else maps.maps, maps=maps, adapter=adapter)

    @classmethod
    def of_reader(
        cls, reader: Reader, name: str, model: nn.Module, tokenizer: Tokenizer, layers: str | None = None
    ) -> Defaults:
        """As the reader was published, for those layers; None: the ones that it was trained on.

        Raises ReaderError, AdapterError where it does not fit.
        """
        fitted = reader.fit(model, tokenizer, layers)
        return cls(
            settings={**SETTINGS, **fitted.settings, "interpretation_prompt": fitted.prompt.name},
            layers=fitted.layers,
            prompts={fitted.prompt.name: fitted.prompt, **BUILT_IN},
            mapping=fitted.mapping,
            adapter=fitted.adapter,
            reader=reader,
            reader_name=name,
        )

    def for_layers(self, layers: str, model: nn.Module, tokenizer: Tokenizer) -> Defaults:
        """The same for a query of these layers: a reader may refuse them, or name them in its prompt."""
        if self.reader is None or layers == self.layers:
            return self
        return self.of_reader(self.reader, self.reader_name, model, tokenizer, layers)

    @property
    def description(self) -> str | None:
        """Who interprets, for people; None: the model itself."""
        if self.reader is not None:
            return self.reader.description
        who = None if self.adapter is None else f"the adapter {self.adapter.name}"
        return who if self.maps is None else f"{who or 'the model itself'}, through the maps of {self.maps.path}"

    @property
    def prompt_names(self) -> list[str]:
        """Those that can be chosen without a question, the default first."""
        first = self.settings["interpretation_prompt"]
        return [first, *(name for name, spec in self.prompts.items() if name != first and not spec.has_field)]

    @property
    def question(self) -> str:
        """What the page asks at first, where the default prompt has a field for it."""
        return "What is this about?" if self.prompts[self.settings["interpretation_prompt"]].has_field else ""
