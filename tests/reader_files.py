"""Files of published readers with random weights for the tiny models: a SelfIE adapter and an Activation Oracle."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import nn

SELFIE_MARK = "<|fim_pad|>"
"""A token that a tokenizer must have, so that the adapter's prompt is known."""


def write_selfie_adapter(folder: Path, *, hidden: int = 32) -> Path:
    """Scale and bias."""
    generator = torch.Generator().manual_seed(0)
    tensors = {part: torch.randn(size, generator=generator) / 2 for part, size in (("log_scale", 1), ("bias", hidden))}
    config = {"projection": {"type": "scalar_affine", "normalize_input": True, "init_scale": 5}}
    path = folder / "sae.safetensors"
    save_file(tensors, path, metadata={"config_json": json.dumps(config), "model_dim": str(hidden)})
    return path


def write_lora(folder: Path, model: nn.Module, name: str, *, rank: int = 64) -> Path:
    """A LoRA of every linear layer, as PEFT stores it; of rank 64 and with "addition" in its name it is an oracle."""
    options = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear", "init_lora_weights": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options, task_type="CAUSAL_LM"))
        for key, parameter in wrapped.named_parameters():
            if "lora_" in key:
                parameter.data /= 20
        wrapped.save_pretrained(folder / name)
    return folder / name
