"""Natural-language interpretations of a language model's hidden embeddings.

from transformers.interpretation import interpret, interpret_vectors, InterpretationPrompt, capture
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.12.0"

_HOMES = {
    "AffineMap": "mapping.affine",
    "BUILT_IN": "prompts.interpretation_prompt",
    "InterpretationPrompt": "prompts.interpretation_prompt",
    "InterpretationPromptSpec": "prompts.interpretation_prompt",
    "Interpretations": "interpretations",
    "Record": "results.record",
    "UnsupportedModelError": "models.families",
    "capture": "hidden_states",
    "find_spec": "prompts.spec_files",
    "fit_affine": "mapping.affine",
    "interpret": "api",
    "interpret_vectors": "api",
    "read_csv": "interpretations",
    "read_examples": "prompts.examples",
    "read_parquet": "interpretations",
    "sweep_layers": "sweep",
}
"""Public name → the module that defines it."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first asked for: importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
