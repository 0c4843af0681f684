"""Where the parts of a model go that is larger than a device: read and checked before weights are loaded.

    Placement.read("auto")
    Placement.read("auto", max_memory="0=20GB,cpu=60GB", offload_folder=Path("offload"))
    Placement.read("map.json")        # {"": 0, "model.layers.30": "cpu", "model.layers.31": "disk"}

accelerate carries it out: weights on the CPU or the disk are brought to a device for as long as their layer runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
Device = int | str
"""A GPU's number, or "cpu", "disk", "cuda:1", …"""
_SIZE = re.compile(r"\d+(\.\d+)?[KMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """A strategy of accelerate's, or the device of every module."""

    text: str
    """As it was asked for."""
    device_map: str | Mapping[str, Device]
    max_memory: Mapping[Device, str] | None = None
    """The most that a strategy puts on each device; devices that are not named get nothing."""
    offload_folder: Path | None = None
    """Where weights go whose place is the disk. Safetensors are read from where they lie and need none."""

    @classmethod
    def read(cls, text: str, *, max_memory: str | None = None, offload_folder: Path | None = None) -> Placement:
        """From what a user writes. Raises ValueError."""
        memory = None if max_memory is None else _memory(max_memory)
        if text in STRATEGIES:
            return cls(text, text, memory, offload_folder)
        if memory is not None:
            raise ValueError(f"the most memory goes with a strategy ({', '.join(STRATEGIES)}), not with {text}")
        if not text.endswith(".json"):
            raise ValueError(f'device map "{text}" is neither a .json file nor one of {", ".join(STRATEGIES)}')
        return cls(text, _modules(Path(text)), None, offload_folder)

    def fitted(self, skeleton: nn.Module) -> Placement:
        """The same for this model. Of an explicit map's names the longest that a module's begins with counts.

        Raises ValueError if the map does not say where every parameter goes.
        """
        if isinstance(self.device_map, str):
            return self
        names = {name for name, _ in [*skeleton.named_modules(), *skeleton.named_parameters()]}
        if unknown := [name for name in self.device_map if name not in names]:
            raise ValueError(f"device map {self.text}: the model has no module {_listed(unknown)}")
        places = dict(self._leaves(skeleton, "", self.device_map.get("")))
        if homeless := [name for name, place in places.items() if place is None and _holds(skeleton, name)]:
            raise ValueError(f"device map {self.text}: it has no device for {_listed(homeless)}")
        embeddings = next(name for name, part in skeleton.named_modules() if part is skeleton.get_input_embeddings())
        if getattr(skeleton.config, "tie_word_embeddings", False) and places.get(embeddings) == "disk":
            raise ValueError(
                f"device map {self.text}: {embeddings} is on the disk, but it is the output matrix too and accelerate "
                "loses it there; give it to the CPU or to a device"
            )
        return replace(self, device_map={name: place for name, place in places.items() if place is not None})

    def _leaves(self, part: nn.Module, name: str, device: Device | None) -> Iterator[tuple[str, Device | None]]:
        """accelerate takes no name inside another, so a module that the map divides gives way to its parts."""
        assert not isinstance(self.device_map, str)  # a strategy has no names to divide
        inside = name + "." if name else ""
        if not any(other.startswith(inside) and other != name for other in self.device_map):
            yield name, device
            return
        for child, module in part.named_children():
            yield from self._leaves(module, inside + child, self.device_map.get(inside + child, device))
        for child, _ in part.named_parameters(recurse=False):
            yield inside + child, self.device_map.get(inside + child, device)

    def options(self) -> dict[str, Any]:
        """For `from_pretrained`."""
        folder = None if self.offload_folder is None else str(self.offload_folder)
        options = {"device_map": self.device_map, "max_memory": self.max_memory, "offload_folder": folder}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in options.items() if value}


def _memory(text: str) -> dict[Device, str]:
    memory: dict[Device, str] = {}
    for part in text.split(","):
        device, _, size = (word.strip() for word in part.partition("="))
        if not _SIZE.fullmatch(size):
            raise ValueError(f'the most memory is "{part}", where DEVICE=SIZE is needed, as in 0=20GB,cpu=60GB')
        memory[_device(int(device) if device.isdecimal() else device)] = size
    return memory


def _modules(path: Path) -> dict[str, Device]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"device map {path}: {getattr(error, 'strerror', None) or 'not valid JSON'}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f'device map {path}: give each module a device, as in {{"model.layers.0": 0, "": "cpu"}}')
    try:
        return {name: _device(device) for name, device in content.items()}
    except ValueError as error:
        raise ValueError(f"device map {path}: {error}") from None


def _device(device: Any) -> Device:
    """The device, if it is one. Whether this machine has it is accelerate's to say."""
    if device == "disk" or (type(device) is int and device >= 0):
        return device
    try:
        if not isinstance(device, str):
            raise RuntimeError
        torch.device(device)
    except RuntimeError:
        raise ValueError(f'{device!r} is no device; write a GPU\'s number, "cpu" or "disk"') from None
    return device


def _holds(model: nn.Module, name: str) -> bool:
    """Whether a part of the model is a parameter or has any."""
    return any((parameter + ".").startswith(name + "." if name else "") for parameter, _ in model.named_parameters())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
