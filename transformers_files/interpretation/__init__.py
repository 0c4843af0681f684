"""Natural-language interpretations of a language model's hidden embeddings.

from transformers.interpretation import interpret, interpret_vectors, InterpretationPrompt, capture
"""

from __future__ import annotations

import importlib
from typing import Any

# Not lazily: the import of a module of the same name, by whichever room, would take the function's place.
from .capture import capture

_HOMES = {
    "AffineMap": "mapping",
    "BUILT_IN": "prompts",
    "InterpretationPrompt": "prompts",
    "InterpretationPromptSpec": "prompts",
    "Interpretations": "results",
    "Record": "results",
    "UnsupportedModelError": "families",
    "find_spec": "prompts",
    "fit_affine": "mapping",
    "interpret": "api",
    "interpret_vectors": "api",
    "read_csv": "results",
    "read_parquet": "results",
    "read_examples": "examples",
    "sweep_layers": "sweep",
}

__all__ = ["capture", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first asked for: importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
