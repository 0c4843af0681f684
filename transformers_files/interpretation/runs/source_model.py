"""The model whose embeddings are interpreted: often the one that interprets them, too."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..mapping.affine import AnyMap
from ..models.tokenizer import Tokenizer


@dataclass(frozen=True)
class SourceModel:
    """What reads the examples, and how its embeddings reach the space of the model that interprets them."""

    model: nn.Module
    """With or without weights, as far as plans are concerned."""
    tokenizer: Tokenizer
    mapping: AnyMap = None
    """See `mapping.affine`; None: the embeddings as they are."""

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tokenizer: Tokenizer,
        other_model: nn.Module | None,
        other_tokenizer: Tokenizer | None,
        mapping: AnyMap,
    ) -> SourceModel:
        """Another model and its tokenizer, where they are not None; else the interpreting model's."""
        return cls(
            model if other_model is None else other_model,
            tokenizer if other_tokenizer is None else other_tokenizer,
            mapping,
        )
