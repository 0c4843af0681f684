"""The changed model: modules of its own over the memory of the untouched one, and weights of its own in some layers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..models.adapters import sharing
from ..models.families import decoder_layers

LORA, FULL = "lora", "full"
WEIGHTS = "layers.safetensors"


@dataclass(frozen=True, eq=False)
class Tuned:
    """A model that is being changed; the one it came from stays as it is."""

    model: nn.Module
    """In evaluation mode."""
    trained: dict[str, nn.Parameter]
    """By name; they alone want gradients."""
    kind: str

    def save(self, folder: str | Path) -> None:
        """A LoRA adapter as PEFT stores it; of whole layers the file `layers.safetensors`, by the model's names."""
        if self.kind == LORA:
            self.model.save_pretrained(str(folder))
            return
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: one.detach().contiguous() for name, one in self.trained.items()}, Path(folder) / WEIGHTS)


def tune(model: nn.Module, layers: Sequence[int], kind: str = LORA, *, rank: int = 8, seed: int = 0) -> Tuned:
    """A model that is equal to this one until its weights in these decoder layers are trained.

    kind: "lora" (Hu and others 2021, arXiv:2106.09685), at every linear layer there, or "full".
    Raises ValueError for layers that there are not, and where peft is needed and not installed.
    """
    n_layers = len(decoder_layers(model))
    if not layers or not 0 <= min(layers) <= max(layers) < n_layers:
        raise ValueError(f"layers {list(layers)}: choose among decoder layers 0 to {n_layers - 1}")
    own = sharing(model, "control")
    chosen = {f"{where}." for where in _names(own, layers)}
    if kind == FULL:
        return _whole(own, chosen)
    if kind != LORA:
        raise ValueError(f"training is {kind!r}: use {LORA} or {FULL}")
    if importlib.util.find_spec("peft") is None:
        raise ValueError(f"training {LORA} needs the package peft: python -m pip install peft (or train {FULL} layers)")
    import peft

    linear = [
        name
        for name, module in own.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(prefix) for prefix in chosen)
    ]
    if not linear:
        raise ValueError(f"layers {list(layers)} have no linear layer for {LORA}; train {FULL} layers")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(own, config).eval()
    trained = {name: one for name, one in adapted.named_parameters() if one.requires_grad}
    return Tuned(adapted, trained, LORA)


def _whole(own: nn.Module, chosen: set[str]) -> Tuned:
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in list(own.named_parameters()):
        if any(name.startswith(prefix) for prefix in chosen):
            parent, _, last = name.rpartition(".")
            trained[name] = nn.Parameter(parameter.detach().clone())
            setattr(own.get_submodule(parent), last, trained[name])
    return Tuned(own.eval(), trained, FULL)


def _names(model: nn.Module, layers: Sequence[int]) -> list[str]:
    """Of decoder layers, as the model's parameters begin."""
    known = {id(module): name for name, module in model.named_modules()}
    return [known[id(decoder_layers(model)[layer])] for layer in layers]
