"""Vectors in a .npy file, as numpy.save writes an array [n, hidden]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .vector_file import VectorsError


@dataclass(frozen=True)
class NpyRows:
    """The file is mapped anew for each read, so that no more of its pages stay in memory."""

    path: Path
    n: int
    hidden: int

    def read(self, start: int, stop: int) -> Tensor:
        import numpy as np

        return torch.from_numpy(np.array(_mapped(self.path)[start:stop], dtype=np.float32))


def open_npy(path: Path) -> NpyRows:
    """Raises VectorsError."""
    found = _mapped(path)
    if found.ndim != 2 or found.dtype.kind != "f":
        size = " × ".join(map(str, found.shape))
        raise VectorsError(f"{path}: found {found.dtype}, {size}; expected floating point numbers, n × hidden")
    if not found.flags.c_contiguous:
        raise VectorsError(f"{path} is stored column by column; save numpy.ascontiguousarray of it")
    return NpyRows(path, *found.shape)


def _mapped(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        if "objects" in str(error) or "pickle" in str(error):
            raise VectorsError(f"{path} is pickled or no .npy file; save an array of numbers with numpy.save") from None
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise VectorsError(f"{path} cannot be read as .npy, it may be cut off: {reason}") from None
