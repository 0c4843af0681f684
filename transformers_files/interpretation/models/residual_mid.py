"""The residual stream between a layer's attention and its MLP: found, read and written in place.

The state goes to the norm in front of the MLP and past it to the sum with what the MLP returns. Both are one tensor in
most families, so that writing into it reaches both; whether it does is tried with a short text, once for each layer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .families import UnsupportedModelError, decoder_layers
from .layer_inputs import keeping_nothing, text_model
from .pre_mlp import watched_norm
from .thread_hooks import input_hook, output_hook

_IDS = (5, 6, 7)
_TOLERANCE = 0.02
"""Of the written vector's norm: far above rounding to 16 bits, far below a branch that was not reached."""

_FOUND: weakref.WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = weakref.WeakKeyDictionary()
"""By layer; a model is asked once."""


def norm_before_mlp(model: nn.Module, layer: int) -> nn.Module:
    """The module whose input is that state.

    Raises `UnsupportedModelError` for a layer that has none, because attention and MLP run side by side, or where what
    is written into it does not reach both the norm and the sum.
    """
    found = _FOUND.setdefault(model, {})
    if layer not in found:
        found[layer] = _find(model, layer)
    return found[layer]


@torch.no_grad()
def _find(model: nn.Module, layer: int) -> nn.Module:
    with watched_norm(model, layer) as norm:
        _run(model)
    module = norm()
    assert module is not None  # else the pass had raised
    if any(parameter.is_meta for parameter in model.parameters()):  # without weights there is nothing to compare
        return module
    plain = _layer_output(model, layer, module, lambda hidden: None)
    vector = torch.linspace(-1, 1, plain.shape[-1], device=plain.device) * plain.float().norm(dim=-1).mean()
    seen: list[Tensor] = []

    def past_the_norm_alone(hidden: Tensor) -> Tensor:
        seen.append(hidden[..., -1, :].float())
        changed = hidden.clone()
        changed[..., -1, :] = vector.to(hidden)
        return changed

    def in_place(hidden: Tensor) -> None:
        hidden[..., -1, :] = vector.to(hidden)

    one = _layer_output(model, layer, module, past_the_norm_alone)
    both = _layer_output(model, layer, module, in_place)
    apart = (both - one)[..., -1, :].float() - (vector - seen[0])
    if float(apart.norm()) > _TOLERANCE * float(vector.norm()):
        raise UnsupportedModelError(
            f"decoder layer {layer} of {type(model).__name__} keeps a copy of its state between attention and MLP, so "
            "that what is written there does not reach both the MLP and the residual stream; insert at another place"
        )
    return module


def _layer_output(model: nn.Module, layer: int, norm: nn.Module, act: Callable[[Tensor], Tensor | None]) -> Tensor:
    outputs: list[Tensor] = []
    with (
        input_hook(norm, act),
        output_hook(decoder_layers(model)[layer], lambda hidden: outputs.append(hidden.clone())),
    ):
        _run(model)
    return outputs[0]


def _run(model: nn.Module) -> None:
    runner = text_model(model)
    device = model.get_input_embeddings().weight.device
    runner(input_ids=torch.tensor([_IDS], device=device), **keeping_nothing(runner))
