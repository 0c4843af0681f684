"""What `torch.set_default_device` means here: nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def cpu_by_default(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its tensors on the CPU where no device is given, whatever the caller's default device is.

    Token ids, positions and random numbers are made on the CPU and moved to where the model is.
    """

    @wraps(function)
    def on_cpu(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.empty(0).device.type == "cpu":  # a device context makes every call of torch slower
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return on_cpu
