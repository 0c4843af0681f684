"""Tiny models with seeded random weights: equal weights on every version of transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.interpretation.models.families import FAMILIES, Family

COMMON = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def available_families() -> list[Family]:
    """The families that the installed version has."""
    return [family for family in FAMILIES if hasattr(transformers, family.causal_lm)]


def tiny_model(family: str = "llama", **overrides: Any) -> PreTrainedModel:
    """A causal language model of 4 layers, hidden size 32, 128 tokens; float32, in evaluation mode.

    family: a `model_type` of `FAMILIES`. overrides: configuration values.
    Weights are wide enough that the best token depends on the input, and no token ever leads by less than rounding.
    """
    entry = next(entry for entry in FAMILIES if entry.model_type == family)
    cls = getattr(transformers, entry.causal_lm)
    config = cls.config_class(**{**COMMON, **entry.tiny, **overrides})
    with torch.random.fork_rng(devices=[]):
        model = cls(config)
    _randomize(model)
    return model.float().eval()


@torch.no_grad()
def _randomize(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
