"""Vectors in a safetensors file: the rows of one tensor, or several tensors that are a vector each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors.suggestions import did_you_mean
from .vector_file import VectorsError

_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 8


@dataclass(frozen=True)
class TensorRows:
    """The rows of one tensor. The file is opened anew for each read, so that no more of its pages stay in memory."""

    path: Path
    name: str
    n: int
    hidden: int

    def read(self, start: int, stop: int) -> Tensor:
        with _opened(self.path) as file:
            return file.get_slice(self.name)[start:stop].to(torch.float32, copy=True)


@dataclass(frozen=True)
class NamedTensors:
    """Several tensors, a vector each."""

    path: Path
    keys: Sequence[str]
    hidden: int

    @property
    def n(self) -> int:
        return len(self.keys)

    def read(self, start: int, stop: int) -> Tensor:
        with _opened(self.path) as file:
            found = [file.get_tensor(name).to(torch.float32, copy=True) for name in self.keys[start:stop]]
        return torch.stack(found) if found else torch.empty(0, self.hidden)


def open_safetensors(path: Path, tensor: str | None = None) -> TensorRows | NamedTensors:
    """tensor: which one; None: the only one with rows, or, where all have one dimension, each of them.

    Raises VectorsError.
    """
    shapes = _shapes(path)
    if tensor is not None and tensor not in shapes:
        raise VectorsError(f'{path} has no tensor "{tensor}"{did_you_mean(tensor, shapes)}; it has {_listed(shapes)}')
    chosen = {name: shape for name, (_, shape) in shapes.items() if len(shape) == 2} if tensor is None else {}
    if tensor is None and not chosen and len({tuple(shape) for _, shape in shapes.values()}) == 1:
        ((dtype, shape), *others) = shapes.values()
        if len(shape) == 1 and dtype in _FLOATS and all(other == dtype for other, _ in others):
            return NamedTensors(path, sorted(shapes), shape[0])
    if tensor is None and len(chosen) != 1:
        raise VectorsError(f"{path} has {_listed(shapes)}; choose with --tensor the one whose rows are the vectors")
    name = tensor or next(iter(chosen))
    dtype, shape = shapes[name]
    if len(shape) != 2 or dtype not in _FLOATS:
        size = " × ".join(map(str, shape))
        raise VectorsError(f"{path}, tensor {name}: found {dtype}, {size}; expected floating point numbers, n × hidden")
    return TensorRows(path, name, *shape)


def _shapes(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor, by its name."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {name: (str(one.get_dtype()), list(one.get_shape())) for name, one in slices.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, VectorsError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise VectorsError(f"{path} cannot be read as safetensors, it may be cut off: {reason}") from None


def _listed(shapes: Mapping[str, tuple[str, list[int]]]) -> str:
    shown = [f"{name} ({' × '.join(map(str, shape))})" for name, (_, shape) in list(shapes.items())[:_SHOWN]]
    more = f" and {len(shapes) - _SHOWN} more" if len(shapes) > _SHOWN else ""
    return f"tensors {', '.join(shown)}{more}" if shown else "no tensors"
