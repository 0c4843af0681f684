"""What a model can take in, and the messages where something exceeds that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors.problems import ProblemsError
from ..models.families import UnsupportedModelError, decoder, decoder_layers
from ..models.rope import short_positions


class PlanError(ProblemsError):
    """Examples or prompts that this model cannot take."""


@dataclass(frozen=True)
class Limits:
    """What a model can take in."""

    n_layers: int
    positions: int | None
    """The longest sequence; None where the model's configuration does not say."""
    vocabulary: int | None
    short_positions: int | None = None
    """The longest text that is read by the angles for short ones; None where there is one set. See `models.rope`."""

    @classmethod
    def of(cls, model: nn.Module) -> Limits:
        """Of a model, with or without weights. Raises UnsupportedModelError."""
        config = decoder(model).config
        if getattr(model.config, "return_dict", True) is False:
            raise UnsupportedModelError(
                "the model's configuration has return_dict false, so that its parts hand each other tuples where they "
                "expect names; set config.return_dict = True"
            )
        positions, vocabulary = (getattr(config, name, None) for name in ("max_position_embeddings", "vocab_size"))
        return cls(len(decoder_layers(model)), positions, vocabulary, short_positions(model))

    def problems(self, input_ids: Sequence[int], new_tokens: int, read_first: int | None = None) -> Iterator[str]:
        """Why a prompt of these token ids, continued by `new_tokens` tokens, cannot be run.

        read_first: how many of its tokens are read in a pass of their own; None: all.
        """
        if not input_ids:
            yield "has no tokens"
        if self.positions is not None and len(input_ids) + new_tokens > self.positions:
            yield f"has {len(input_ids)} tokens and {new_tokens} new ones; the model takes {self.positions}"
        if self.vocabulary is not None and max(input_ids, default=0) >= self.vocabulary:
            yield f"has token id {max(input_ids)}, the model knows {self.vocabulary}: is it the model's own tokenizer?"
        if self.short_positions is not None:
            first, last = read_first or len(input_ids), len(input_ids) + new_tokens
            if first <= self.short_positions < last:
                yield (
                    f"is read from {first} to {last} tokens, and after {self.short_positions} the model turns all "
                    "positions by other angles than those that its cache then has; be shorter, or begin beyond"
                )
