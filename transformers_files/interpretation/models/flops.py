"""What it costs a model to process tokens, counted from its modules: parameters, key/value cache, operations.

size = ModelSize.of(model)                                    # with or without weights
Work(tokens=100, logits=1, pairs=100 * 100).operations(size)  # FLOPs of a pass over 100 tokens
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from .families import decoder, decoder_layers

_UNITS = {"": 1e0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_RATE = re.compile(r"(?P<number>\d+(\.\d+)?(e\d+)?)\s*((?P<unit>[kmgtp]?)flop(/?s)?)?", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSize:
    """What a model's modules say about the cost of a token."""

    parameters: int
    """All of them, shared ones once."""
    active: int
    """Those of the decoder layers that a token is multiplied with; of experts, as many as a token is sent to."""
    head: int
    """Those of the output matrix."""
    n_layers: int
    attention: int
    """Width of all query heads of a layer together."""
    cached: int
    """Numbers that a token adds to the key/value cache, over all layers."""
    hidden: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """Of a model with or without weights."""
        config, layers = decoder(model).config, decoder_layers(model)
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if head is not embedding and getattr(model.config, "tie_word_embeddings", False):
            parameters -= head.numel()  # a skeleton of 5.0 has two where the loaded model has one
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
            groups = 1  # of Falcon and GPT-BigCode
        return cls(
            parameters=parameters,
            active=round(sum(_active(config, name, weight) for name, weight in layers.named_parameters())),
            head=head.numel(),
            n_layers=len(layers),
            attention=heads * head_size,
            cached=2 * len(layers) * groups * head_size,
            hidden=embedding.shape[-1],
        )


@dataclass(frozen=True)
class Work:
    """Tokens that pass through a model, and what their passes read."""

    tokens: int = 0
    logits: int = 0
    """Positions whose logits are made."""
    pairs: int = 0
    """(query, key) positions of attention, per layer and head."""

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.logits + other.logits, self.pairs + other.pairs)

    def __mul__(self, times: int) -> Work:
        return Work(self.tokens * times, self.logits * times, self.pairs * times)

    def operations(self, size: ModelSize) -> int:
        """FLOPs."""
        attention = 4 * size.attention * size.n_layers * self.pairs
        return 2 * size.active * self.tokens + 2 * size.head * self.logits + attention


@dataclass(frozen=True)
class Rate:
    """How fast one device is."""

    per_second: float
    operations: bool
    """FLOPs, or else interpretations."""

    @classmethod
    def read(cls, text: str) -> Rate:
        """`12.5` (interpretations per second) or `250TFLOP/s`. Raises ValueError."""
        match = _RATE.fullmatch(text.strip())
        if match is None or not float(match["number"]):
            raise ValueError(f'rate "{text}" is neither a number of interpretations per second nor one of FLOP/s')
        return cls(float(match["number"]) * _UNITS[(match["unit"] or "").lower()], match["unit"] is not None)

    def __str__(self) -> str:
        return f"{self.per_second:.3g} {'FLOP/s' if self.operations else 'interpretations/s'}"


def _active(config: Any, name: str, weight: nn.Parameter) -> float:
    """How much of a layer's weight one token is multiplied with."""
    if weight.ndim < 2:
        return 0.0
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    share = config.num_experts_per_tok / experts if experts and ".experts." in f".{name}." else 1.0
    return weight.numel() * share
