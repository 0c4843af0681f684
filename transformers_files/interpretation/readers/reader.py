"""What every format of readers has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ..models.adapters import Adapter
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec


class ReaderError(ValueError):
    """A reader that cannot be used; the message is one line that names its file, what was found and expected."""


@dataclass(frozen=True)
class FittedReader:
    """A reader on one model, in the terms of `interpret`."""

    prompt: InterpretationPromptSpec
    insert_layer: int
    replacing_mode: str
    layers: str
    """Whose embeddings it was trained on, as a `Selection` takes them."""
    mapping: Callable[[Tensor], Tensor] | None = None
    """What vectors go through first, `[n, hidden]` to `[n, hidden]`."""
    adapter: Adapter | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of `InterpretationSettings`: as published, so without guidance and gain."""
        how = {"insert_layer": self.insert_layer, "replacing_mode": self.replacing_mode}
        return how | {"overlay_strength": 1.0, "guidance": 0.0, "deep_gain": 1.0}

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `interpret`."""
        adapter = None if self.adapter is None else str(self.adapter.folder)
        given = {"interpretation_prompt": self.prompt, "layers": self.layers, "mapping": self.mapping}
        return given | self.settings | {"reader_adapter": adapter}


class Reader(Protocol):
    """A reader that was recognised, before it meets a model."""

    @property
    def description(self) -> str:
        """What was recognised, in one line."""
        ...

    @property
    def digest(self) -> str:
        """Differs for another reader, whatever its name."""
        ...

    def fit(self, model: nn.Module, tokenizer: Tokenizer, layers: str | None = None) -> FittedReader:
        """On a model, with or without weights. layers: those to read; None: what it was trained on.

        Raises ReaderError, AdapterError where it does not fit.
        """
        ...


def hidden_size(model: nn.Module) -> int:
    """Of the vectors that a model's embedding layer makes."""
    return model.get_input_embeddings().weight.shape[-1]
