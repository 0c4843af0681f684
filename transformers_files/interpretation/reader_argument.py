"""A published reader that a user of `interpret` names, and what it sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .engine.settings import DEFAULT_PROMPT, DEFAULTS
from .models.tokenizer import Tokenizer
from .readers.formats import find_reader
from .readers.reader import FittedReader, Reader

AnyReader = str | Path | Reader
"""A file, a folder or a hub id, as `readers.formats.find_reader` takes them; or what it gave."""
_UNSET = {
    "interpretation_prompt": DEFAULT_PROMPT,
    **{
        name: getattr(DEFAULTS, name) for name in ("insert_layer", "insert_place", "replacing_mode", "overlay_strength")
    },
    **{name: getattr(DEFAULTS, name) for name in ("guidance", "deep_gain")},
    "mapping": None,
    "reader_adapter": None,
}
"""What a reader sets, and how each argument is where it was left out."""


def fitted_reader(
    reader: AnyReader, model: nn.Module, tokenizer: Tokenizer, layers: str | None, given: Mapping[str, Any]
) -> FittedReader:
    """The reader on this model.

    layers: those to read, as text; None: what it was trained on. given: arguments of the call by name.

    Raises ValueError for a reader that does not fit, and where an argument says otherwise than the reader.
    """
    if doubled := [name for name, value in _UNSET.items() if name in given and given[name] != value]:
        raise ValueError(f"the reader sets {', '.join(doubled)}: leave {'it' if len(doubled) == 1 else 'them'} out")
    found = find_reader(reader) if isinstance(reader, (str, Path)) else reader
    return found.fit(model, tokenizer, layers)
