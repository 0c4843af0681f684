"""Hook points: the modules at whose input or output hidden embeddings can be read and written; `places` names them.

    with hook_at(model, 5, "mlp_output", seen.append):     # acts on what the MLP of layer 5 returns
        model(input_ids)

Where the look-up fails, the model can be given the path:
``model.interpretation_places = {"mlp_output": "path.within.a.layer"}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from .families import UnsupportedModelError, decoder_layers
from .places import (
    ATTENTION_OUTPUT,
    FINAL_NORM,
    LAYER_OUTPUT,
    MLP_INPUT,
    MLP_OUTPUT,
    RESIDUAL,
    RESIDUAL_MID,
    check_hook_point,
)
from .thread_hooks import Act, input_hook, output_hook


@dataclass(frozen=True)
class HookPoint:
    """One place, as the input or the output of a module."""

    is_input: bool = False
    """Whether it is what the module is given, else what it returns."""
    paths: tuple[str, ...] = ()
    """Where the module may be within a decoder layer, as dotted paths; the first that is there counts. None: the layer
    itself."""


# The last projections come first because Bloom adds the residual stream within its attention and MLP; OPT has no MLP
# but its two matrices.
_PLACES: Mapping[str, HookPoint] = {
    RESIDUAL: HookPoint(is_input=True),
    ATTENTION_OUTPUT: HookPoint(
        paths=("self_attention.dense", "self_attn", "self_attention", "attention", "attn"),
    ),
    RESIDUAL_MID: HookPoint(is_input=True),
    MLP_INPUT: HookPoint(is_input=True, paths=("mlp", "block_sparse_moe", "feed_forward", "fc1")),
    MLP_OUTPUT: HookPoint(paths=("mlp.dense_4h_to_h", "mlp", "block_sparse_moe", "feed_forward", "fc2")),
    LAYER_OUTPUT: HookPoint(),
}


def check_writable(model: nn.Module, layers: Iterable[int], place: str) -> None:
    """Raise `UnsupportedModelError` where the place of a layer cannot be found."""
    for layer in layers if place != FINAL_NORM else ():  # that one is the decoder's own output
        hook_point_module(model, layer, place)


def hook_at(model: nn.Module, layer: int, hook_point: str, act: Act) -> AbstractContextManager[None]:
    """A hook that acts on what passes there.

    Raises `UnsupportedModelError` where it cannot be found, and ValueError for a hook point that there is not.
    """
    hook = input_hook if _PLACES[hook_point].is_input else output_hook
    return hook(hook_point_module(model, layer, hook_point), act)


def hook_point_module(model: nn.Module, layer: int, hook_point: str) -> nn.Module:
    """The module whose input (residual, residual_mid, mlp_input) or output is that hook point of a layer.

    What is in front of the MLP (residual_mid) is found by passes over a short text, once.
    Raises `UnsupportedModelError` where it cannot be found, and ValueError for a hook point that there is not.
    """
    check_hook_point(hook_point)
    module = decoder_layers(model)[layer]
    if hook_point == RESIDUAL_MID:
        from .residual_mid import norm_before_mlp  # not above: it finds the MLP with this very module

        return norm_before_mlp(model, layer)
    if not _PLACES[hook_point].paths:
        return module
    named = getattr(model, "interpretation_places", {}).get(hook_point)
    return part_of_layer(module, hook_point, named, f"layer {layer}")


def part_of_layer(layer: nn.Module, hook_point: str, named: str | None = None, called: str = "the layer") -> nn.Module:
    """The same within a decoder layer by itself; named: its dotted path, where the usual ones do not count.

    Raises `UnsupportedModelError` where it cannot be found.
    """
    for path in _PLACES[hook_point].paths if named is None else (named,):
        with contextlib.suppress(AttributeError):
            return layer.get_submodule(path)
    found = f"is no {named}" if named else f"was not found in a {type(layer).__name__}"
    children = ", ".join(name for name, _ in layer.named_children())
    raise UnsupportedModelError(
        f"{hook_point} of {called} {found} (it has {children}); say where it is: "
        f'model.interpretation_places = {{"{hook_point}": "path.within.a.layer"}} (the module that '
        f"{'is given' if _PLACES[hook_point].is_input else 'returns'} it)"
    )
