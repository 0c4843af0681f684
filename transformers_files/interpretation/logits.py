"""One forward pass that makes logits only where they are read.

A language model's head is a large part of a small model's work, and `[batch, sequence, vocabulary]` logits are most of
its memory. Newer versions of the library have `logits_to_keep` for some families; a pre-hook on the head serves all
versions and families alike, and leaves alone whatever the model does with its logits afterwards: scaling, soft-capping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def forward_scored(
    model: nn.Module, input_ids: torch.Tensor, cache: Any, positions: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    """Process tokens after a cache; return their logits at some positions, and the longer cache.

    Args:
        model: a causal language model.
        input_ids: `[batch, sequence]`, without padding on the left.
        cache: keys and values of what came before, as `cache.empty_cache` or an earlier pass gave them.
        positions: `[k]` or `[batch, k]`, indices into the sequence of `input_ids`, the same number for every row.

    Returns:
        float32 logits `[batch, k, vocabulary]` on the model's device, and the cache that includes the new tokens.
    """
    rows = torch.arange(input_ids.shape[0], device=input_ids.device)[:, None]
    positions = positions.to(input_ids.device).expand(input_ids.shape[0], -1)

    def select(states: torch.Tensor) -> torch.Tensor:
        return states[rows.to(states.device), positions.to(states.device)]

    handle = _before_head(model, select)
    try:
        out = model(input_ids=input_ids, past_key_values=cache, use_cache=True, return_dict=True)
    finally:
        handle.remove()
    logits = out.logits
    if logits.shape[1] != positions.shape[1]:  # a head that is applied without being called, e.g. sliced over devices
        logits = select(logits)
    return logits.float().to(input_ids.device), out.past_key_values


def input_device(model: nn.Module) -> torch.device:
    """Where token ids go. Weights that are offloaded lie nowhere; their hooks take ids from anywhere."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def _before_head(model: nn.Module, select: Callable[[torch.Tensor], torch.Tensor]) -> torch.utils.hooks.RemovableHandle:
    return model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (select(args[0]), *args[1:]))
