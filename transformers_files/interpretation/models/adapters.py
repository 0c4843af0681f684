"""A LoRA adapter on top of a model that stays as it is, with one copy of the weights.

    adapter = Adapter.find("mine/reader")       # a folder or hub id, as PEFT stores it; no weights are read
    adapter.check(model)
    reader = adapter.on(model)                  # `model` itself stays without it

Nothing is switched: the reader has modules of its own over the same memory. An error in one of them, or a
pass in another thread, does not affect the other. Reading an adapter needs the packages peft and safetensors.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .fingerprint import folder_fingerprint
from .hub import fetched, is_hub_id

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_LORA = re.compile(r"base_model\.model\.(.+)\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\.weight)?")


class AdapterError(ValueError):
    """An adapter that cannot be used; the message is one line that names its folder."""


@dataclass(frozen=True)
class Adapter:
    """What is known of an adapter before its weights are read."""

    name: str
    """As it was asked for: folder or hub id."""
    folder: Path
    config: Mapping[str, Any]
    """What its file says."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of its tensors, by their names in the file."""

    @classmethod
    def find(cls, name: str | Path) -> Adapter:
        """An adapter that changes a model's matrices alone. Raises AdapterError for any other."""
        if importlib.util.find_spec("peft") is None:
            raise AdapterError(f"adapter {name}: it needs the package peft; run: python -m pip install peft")
        folder = _folder(str(name))
        config = _read_config(name, folder)
        if config.get("peft_type") != "LORA":
            raise AdapterError(f"adapter {name}: {CONFIG} says peft_type {config.get('peft_type')!r}, expected 'LORA'")
        if config.get("bias", "none") != "none":
            raise AdapterError(f"adapter {name}: {CONFIG} says bias {config['bias']!r}, expected 'none'")
        if not (folder / WEIGHTS).is_file():
            pickled = f"; {PICKLED} is pickled, so it could run anything" if (folder / PICKLED).exists() else ""
            raise AdapterError(f"adapter {name}: no file {WEIGHTS}{pickled}")
        return cls(str(name), folder, config, _shapes(name, folder / WEIGHTS))

    @property
    def fingerprint(self) -> str:
        """Differs for another adapter, whatever its name."""
        return folder_fingerprint(self.folder)

    def check(self, model: nn.Module) -> None:
        """Raise AdapterError unless it fits the model, which may be without weights."""
        if hasattr(model, "peft_config"):
            raise AdapterError(
                f"adapter {self.name}: the model has an adapter already; give the plain model, and the one with its "
                "adapter as the source model"
            )
        modules = dict(model.named_modules())
        copied = tuple(self.config.get("modules_to_save") or ())
        for key, shape in self.shapes.items():
            match = _LORA.fullmatch(key)
            name = match[1] if match else key.removeprefix("base_model.model.").rpartition(".")[0]
            if match is None and name.rpartition(".")[2] not in copied:
                raise AdapterError(
                    f"adapter {self.name}: {WEIGHTS} has {key}, which would write over the model's own weights; "
                    "expected lora_… alone"
                )
            if name not in modules:
                raise AdapterError(f"adapter {self.name}: {WEIGHTS} is for {name}, which the model does not have")
            if match is not None and (problem := _misfit(match[2], shape, modules[name])):
                raise AdapterError(f"adapter {self.name}: {WEIGHTS}, {key}: {problem}")

    def on(self, model: nn.Module) -> nn.Module:
        """The model with the adapter, in evaluation mode; `model` stays without it. Raises AdapterError."""
        from peft import PeftModel

        self.check(model)
        try:
            return PeftModel.from_pretrained(sharing(model, self.name), str(self.folder)).eval()
        except AdapterError:
            raise
        except Exception as error:  # peft raises whatever the files make it raise
            raise AdapterError(f"adapter {self.name}: {' '.join(str(error).split())[:300]}") from error


def sharing(model: nn.Module, name: str) -> nn.Module:
    """Other modules over the same memory. Parameters are objects of their own: peft freezes those that it finds."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for where, parameter in model.named_parameters():
        if parameter.is_meta or type(parameter) is not nn.Parameter:
            what = "offloaded" if parameter.is_meta else f"a {type(parameter).__name__}"
            raise AdapterError(f"adapter {name}: the model's {where} is {what}, which cannot be shared; load it whole")
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(model, memo)


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name) or name.count("/") != 1:
        raise AdapterError(f"adapter {name}: there is no such folder")
    try:
        return fetched(name, ("adapter_*", "*.yaml"))
    except FileNotFoundError as error:
        raise AdapterError(f"adapter {name}: no such folder, and not from the hub: {error}") from error


def _read_config(name: str | Path, folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"adapter {name}: no file {CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"adapter {name}: cannot read {CONFIG}: {error}") from None
    if not isinstance(config, dict):
        raise AdapterError(f"adapter {name}: {CONFIG} is no JSON object")
    return config


def _shapes(name: str | Path, path: Path) -> Mapping[str, tuple[int, ...]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dict)
    except Exception as error:  # safetensors has errors of its own, differing by version
        raise AdapterError(f"adapter {name}: cannot read {path.name}: {error}") from error


def _misfit(part: str, shape: tuple[int, ...], module: nn.Module) -> str | None:
    """Why a part of a LoRA does not fit a linear layer."""
    if not isinstance(module, nn.Linear) or part not in ("A", "B"):
        return None
    found, expected = (shape[-1], module.in_features) if part == "A" else (shape[0], module.out_features)
    return None if found == expected else f"found size {found}, the model's is {expected}"
