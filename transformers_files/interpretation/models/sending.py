"""Between the host and a device: what is sent does not make the host wait, and what is read comes in one copy.

A GPU works through a queue. Whatever reads a number of it, `.item()`, `.tolist()`, `nonzero`, an index by a mask, has
the host wait until the queue is empty, and the GPU idle until the host has queued more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(values: Sequence[float] | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers, or a tensor, on a device. The host does not wait where they come from the host.

    A copy out of memory that is not pinned has left it when the call returns, so that the source may go. Apple's
    devices promise no such thing.
    """
    tensor = values if isinstance(values, Tensor) else torch.tensor(values, device="cpu")
    ahead = tensor.device.type == "cpu" and device.type != "mps"
    return tensor.to(device, dtype or tensor.dtype, non_blocking=ahead)


def read_tokens(tokens: Tensor, *probabilities: Tensor) -> tuple[list[int], list[list[float]]]:
    """Token ids `[n]` and float32 probabilities `[n]` of theirs, out of one copy from the device: one wait."""
    packed = torch.stack([tokens.int(), *(each.view(torch.int32) for each in probabilities)]).cpu()
    return packed[0].tolist(), packed[1:].view(torch.float32).tolist()
