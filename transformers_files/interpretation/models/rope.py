"""Rotary embeddings whose angles change once a text is long (LongRoPE, Ding and others 2024, as in Phi-3).

The angles of all positions depend on how long the text is that a pass ends with. Keys that a cache holds keep those of
a shorter text, so a text that outgrows the short angles between two passes gives other states than in one pass.
The library's meaning is that of one pass: its `generate` drops the cache at that point.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .families import UnsupportedModelError, decoder


def short_positions(model: nn.Module) -> int | None:
    """The most positions that a model reads by its angles for short texts; None where there is one set of angles."""
    config = decoder(model).config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, dict):
        return None
    sections: list[Any] = [rope, *rope.values()]  # newer versions may have one for each type of layer
    for section in sections:
        if isinstance(section, dict) and "short_factor" in section:
            named = section.get("original_max_position_embeddings")
            return named or getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
    return None


def check_pass(model: nn.Module, cached: int, new: int) -> None:
    """Raise UnsupportedModelError for a pass with which a text outgrows the angles by which its cache was made."""
    short = short_positions(model) if cached else None
    if short is not None and cached <= short < cached + new:
        raise UnsupportedModelError(
            f"a text of {cached} tokens grows to {cached + new}, and from {short + 1} on this model turns all "
            "positions by other angles than those in the key/value cache; use shorter texts or fewer new tokens"
        )
