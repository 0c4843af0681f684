"""Loads a model by name: first what can be known without its weights, then the weights.

    outline = read_outline("meta-llama/Llama-3.1-8B-Instruct")
    model = load_weights(outline, dtype=torch.bfloat16, device="cuda")

Code that a model brings along runs only if `trust_remote_code` is asked for. Weights come from safetensors where there
are any. Pickled ones are read with torch's `weights_only`, which is torch's own default since 2.6; before, set
TORCH_FORCE_WEIGHTS_ONLY_LOAD=1 as the script does.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file

from .device_map import Placement
from .families import UnsupportedModelError, decoder_layers
from .fingerprint import folder_fingerprint
from .tokenizer import Tokenizer

_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's name for it


class ModelError(ValueError):
    """A model that cannot be loaded; the message is one line."""


@dataclass(frozen=True)
class Outline:
    """A model without its weights."""

    name: str
    """Hub id or folder."""
    trust_remote_code: bool
    tokenizer: Tokenizer
    skeleton: nn.Module
    """The modules, on the device "meta"."""
    fingerprint: str
    """Differs for another model, whatever its name."""

    @property
    def hidden(self) -> int:
        """Size of a hidden embedding."""
        return self.skeleton.get_input_embeddings().weight.shape[-1]


def read_outline(name: str, *, trust_remote_code: bool = False) -> Outline:
    """Configuration, tokenizer and modules of a model. Raises ModelError."""
    if not Path(name).is_dir() and (Path(name).exists() or _looks_like_path(name)):
        raise ModelError(f"model {name}: there is no such folder")
    if Path(name, "adapter_config.json").exists() and not Path(name, "config.json").exists():
        raise ModelError(
            f"model {name}: is an adapter without its model; give a folder with both in one: "
            "PeftModel.from_pretrained(model, ADAPTER).merge_and_unload().save_pretrained(FOLDER), and its tokenizer"
        )
    try:
        if not trust_remote_code:
            _refuse_hidden_code(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # the library raises whatever the files make it raise
        raise ModelError(f"model {name}: {_in_short(error)}") from error
    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        decoder_layers(skeleton)
    except UnsupportedModelError as error:
        raise ModelError(f"model {name}: {error}") from error
    except Exception as error:
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise ModelError(f"model {name}: {config.model_type} is no causal language model") from error
        raise ModelError(f"model {name}: {_in_short(error)}") from error
    return Outline(name, trust_remote_code, tokenizer, skeleton, _fingerprint(name, config))


def load_weights(outline: Outline, *, dtype: torch.dtype, device: str, placement: Placement | None = None) -> nn.Module:
    """The model, ready to run. A placement over several devices takes the place of `device`. Raises ModelError."""
    options: dict[str, Any] = {_dtype_option(): dtype, "trust_remote_code": outline.trust_remote_code}
    options |= placement.options() if placement is not None else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(outline.name, **options)
        return (model if placement is not None else model.to(device)).eval()
    except Exception as error:
        raise ModelError(f"model {outline.name}: cannot load its weights: {_in_short(error)}") from error


def resolve_device(name: str) -> str:
    """`auto`: a GPU if there is one. Raises ModelError for a device that torch does not have."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if torch.empty(0, device=name).is_meta:
            raise ModelError(f"device {name}: it holds shapes without numbers; weights need a real one")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {name}: {_in_short(error)}") from error
    return name


def resolve_dtype(name: str, device: str) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it natively, else float32."""
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware has instructions for it; where that is unknown, no."""
    if device.startswith("cuda"):
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return not _NATIVE_BFLOAT16.isdisjoint(flags.split())


def _refuse_hidden_code(name: str) -> None:
    """Raise ModelError for a configuration that has transformers 4.56 to 5.2 run a hub repository's code unasked.

    A hub repository as attention implementation does that (CVE-2026-4372), before `trust_remote_code` is looked at; so
    the file is read as plain JSON, before the library sees it.
    """
    with open(cached_file(name, "config.json"), encoding="utf-8") as file:
        sections = [json.load(file)]
    while sections:
        section = sections.pop()
        values = section.items() if isinstance(section, dict) else enumerate(section)
        for key, value in values:
            if isinstance(value, (dict, list)):
                sections.append(value)
            elif "attn_implementation" in str(key) and "/" in str(value):
                raise ModelError(
                    f"model {name}: its config.json wants code from {value} run ({key}); "
                    "look at that code, then allow it with --trust-remote-code"
                )


def _fingerprint(name: str, config: Any) -> str:
    if Path(name).is_dir():
        return folder_fingerprint(Path(name))
    commit = getattr(config, "_commit_hash", None)
    return f"{name}@{commit}" if commit else hashlib.sha256(f"{name}{config.to_json_string()}".encode()).hexdigest()


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1


def _dtype_option() -> str:
    """`torch_dtype` got a shorter name in 4.56 and is deprecated since."""
    major, minor = map(int, re.findall(r"\d+", transformers.__version__)[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def _in_short(error: Exception) -> str:
    """The first sentence or two of what may be a page, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "trust_remote_code" in text:
        return "it needs code of its own to run; look at that code, then allow it with --trust-remote-code"
    return text if len(text) <= 300 else text[:297] + "..."
