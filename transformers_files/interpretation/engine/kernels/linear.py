"""Linear layers in float32 on an AMD processor, a fifth faster than torch's own there.

torch multiplies float32 matrices with Intel's MKL wherever it is built with it. On AMD's processors oneDNN, which torch
carries for other types, is faster: all linear layers of 135 million parameters with 192 rows on a Zen 4 at 158
GFLOP/s instead of 124, with 384 rows at 174 instead of 138. On Intel's own MKL keeps the work.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (Tensor, nn.Parameter, type(None))
"""Quantised weights are tensors of other classes, which say that they are float32 and multiply in their own way."""


def one_dnn_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """FunctionOverrides `torch.nn.functional.linear` for `[..., in]` and `[out, in]` in float32, without gradients."""
    one = input.dtype == weight.dtype == torch.float32 and input.device.type == weight.device.type == "cpu"
    plain = all(type(tensor) in _PLAIN for tensor in (input, weight, bias))
    if not one or not plain or torch.is_grad_enabled() or not input.numel() or not _is_faster():
        return NotImplemented
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


@functools.cache
def _is_faster() -> bool:
    info = Path("/proc/cpuinfo")
    amd = info.exists() and "AuthenticAMD" in info.read_text(encoding="utf-8")
    return amd and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
