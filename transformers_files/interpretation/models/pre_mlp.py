"""The states around each layer's MLP: what it is given, and what its output is added to.

`residual_mid.norm_before_mlp` names the module between the two.

with pre_mlp_states(model) as pairs:
    model(input_ids)
mlp_input, residual = pairs[6]      # of decoder layer 5; each [batch, columns, hidden]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from .families import UnsupportedModelError, decoder_layers
from .hook_points import hook_point_module, part_of_layer
from .places import ATTENTION_OUTPUT, MLP_INPUT
from .thread_hooks import input_hook, output_hook

Pairs = list[tuple[Tensor, Tensor]]


@contextmanager
def pre_mlp_states(model: nn.Module) -> Iterator[Pairs]:
    """Collects, in the passes of this thread, a pair of states for each layer; gradients flow through them.

    The first pair is twice what the first layer is given. Then there is one for each layer: what its MLP is given,
    after the norm in front of it, and what that norm is given, the residual stream between attention and MLP. Several
    passes follow one another in the list.

    Raises `UnsupportedModelError` in the pass where there is no such state: attention and MLP run side by side, or the
    MLP is given something else than what one of the layer's modules returns.
    """
    pairs: Pairs = []
    layers = decoder_layers(model)
    with ExitStack() as hooks:
        hooks.enter_context(input_hook(layers[0], lambda hidden: pairs.append((hidden, hidden))))
        for number, layer in enumerate(layers):
            attention, mlp = (hook_point_module(model, number, point) for point in (ATTENTION_OUTPUT, MLP_INPUT))
            name = f"decoder layer {number} of {type(model).__name__}"
            hooks.enter_context(_watched(layer, attention, mlp, name, pairs))
        yield pairs


@contextmanager
def pre_mlp_states_of_layer(layer: nn.Module) -> Iterator[Pairs]:
    """The same for passes of a single decoder layer, whose pairs alone are collected."""
    pairs: Pairs = []
    attention, mlp = (part_of_layer(layer, point) for point in (ATTENTION_OUTPUT, MLP_INPUT))
    with _watched(layer, attention, mlp, f"a {type(layer).__name__}", pairs):
        yield pairs


@contextmanager
def watched_norm(model: nn.Module, layer: int) -> Iterator[Callable[[], nn.Module | None]]:
    """What gives the module in front of a layer's MLP, once a pass has run. The pass raises as in `pre_mlp_states`."""
    attention, mlp = (hook_point_module(model, layer, point) for point in (ATTENTION_OUTPUT, MLP_INPUT))
    name = f"decoder layer {layer} of {type(model).__name__}"
    with _watched(decoder_layers(model)[layer], attention, mlp, name, []) as watch:
        yield lambda: watch.norm


@contextmanager
def _watched(layer: nn.Module, attention: nn.Module, mlp: nn.Module, name: str, pairs: Pairs) -> Iterator[_Layer]:
    watch = _Layer(name, pairs)
    with ExitStack() as hooks:
        hooks.enter_context(input_hook(layer, watch.begin))
        hooks.enter_context(output_hook(attention, watch.attend))
        for child in layer.children():
            if child is not mlp and child is not attention:
                hooks.enter_context(input_hook(child, watch.given))
                hooks.enter_context(output_hook(child, functools.partial(watch.returned, child)))
        hooks.enter_context(input_hook(mlp, watch.feed))
        yield watch


class _Layer:
    """What has happened in one layer's pass so far."""

    def __init__(self, name: str, pairs: Pairs) -> None:
        self._name, self._pairs = name, pairs
        self._input: Tensor | None = None
        self._attended = False
        self._given: Tensor | None = None
        self._norms: list[tuple[nn.Module, Tensor, Tensor]] = []
        """Modules that ran after the attention: what each was given and returned."""
        self.norm: nn.Module | None = None
        """The one in front of the MLP."""

    def begin(self, hidden: Tensor) -> None:
        self._input, self._attended = hidden, False
        self._norms.clear()

    def attend(self, _: Tensor) -> None:
        self._attended = True

    def given(self, hidden: Tensor) -> None:
        self._given = hidden

    def returned(self, module: nn.Module, hidden: Tensor) -> None:
        if self._attended and self._given is not None:
            self._norms.append((module, self._given, hidden))

    def feed(self, hidden: Tensor) -> None:
        found = ((module, given) for module, given, returned in self._norms if returned is hidden)
        self.norm, residual = next(found, (None, None))
        # OPT flattens rows and columns in front of its MLP.
        if residual is None or self._input is None or residual is self._input or residual.shape != self._input.shape:
            raise UnsupportedModelError(
                f"{self._name} has no state between attention and MLP that could be returned as its pre-MLP state: it "
                "runs them side by side, or its MLP is not given what a norm of the layer returns"
            )
        self._pairs.append((hidden, residual))
        self._norms.clear()
