"""Hidden embeddings of a prompt: only the layers and tokens asked for, in one pass.

states = capture(model, input_ids, layers=[0, 10, 20], tokens=[-1])  # [3, 1, hidden]
means = capture(model, input_ids, layers=[10], tokens=[range(2, 5)], place="mlp_output")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from .families import UnsupportedModelError, decoder_layers
from .hook_points import hook_at, hook_point_module
from .layer_inputs import check_layer_inputs, check_runs_once, keeping_nothing, text_model
from .places import RESIDUAL, check_hook_point
from .sending import sent

_HELD_ON_DEVICE = 64 * 1024**2
"""Bytes of states that wait there for one copy; more go to the CPU layer by layer, so as to need no room."""


def capture(
    model: nn.Module,
    input_ids: Tensor,
    layers: Sequence[int],
    tokens: Sequence[int | range],
    place: str = RESIDUAL,
) -> Tensor:
    """What a plain forward calls `hidden_states[layer][0, token]`, for each layer and token; or another hook point.

    The pass runs the decoder without the output matrix, and keeps nothing but what is asked for.

    Args:
        model: a causal language model.
        input_ids: `[1, sequence]`.
        layers: 0 … n_layers, in any order: the input of that decoder layer; n_layers is the state after the final norm.
            Negative ones count from the end. Hook points other than the residual stream have 0 … n_layers − 1.
        tokens: positions in the sequence, in any order, negative ones counting from the end; or ranges of positions
            from 0 on, which stand for the mean over them, computed in float32 and rounded once.
        place: the hook point: "residual", or of each layer "attention_output", "mlp_input", "mlp_output" or
            "layer_output"; see `places.HOOK_POINTS`.

    Returns:
        `[len(layers), len(tokens), hidden]` on the CPU, in the model's dtype.

    Raises:
        ValueError: `input_ids` is not one sequence, no layer is given, or a layer, token or hook point does not exist.
        UnsupportedModelError: what the layers are given is not one embedding per token.
        RuntimeError: a layer never ran as a module of its own.
    """
    if input_ids.ndim != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] == 0:
        raise ValueError(f"capture takes input_ids of shape [1, sequence], not {list(input_ids.shape)}")
    if len(layers) == 0:
        raise ValueError("capture needs at least one layer")
    check_hook_point(place)
    last = len(decoder_layers(model))
    wanted = [_in_range("layer", layer, last + (place == RESIDUAL)) for layer in layers]
    positions = [_position(token, input_ids.shape[1]) for token in tokens]
    check_layer_inputs(model)
    check_runs_once(model, set(wanted) - {last})

    for layer in set(wanted) - {last}:
        hook_point_module(model, layer, place)  # before hooks are set: to find it may take passes of its own
    states: dict[int, Tensor] = {}
    held = _HELD_ON_DEVICE // len(wanted)
    with ExitStack() as hooks, torch.no_grad():
        for layer in set(wanted) - {last}:
            hooks.enter_context(hook_at(model, layer, place, _keep(states, layer, positions, held)))
        ids = _beside_embeddings(model, input_ids)
        runner = text_model(model)
        output = runner(input_ids=ids, **keeping_nothing(runner))
    if last in wanted:
        _keep(states, last, positions, held)(output.last_hidden_state)
    missing = sorted(set(wanted) - states.keys())
    if missing:
        raise RuntimeError(f"the hidden states of layers {missing} were not seen: is the decoder itself compiled?")
    sizes = {layer: states[layer].shape[-1] for layer in wanted}
    if len(set(sizes.values())) > 1:
        raise UnsupportedModelError(
            f"hidden states of different sizes (layer: size): {sizes}; ask for those of one size at a time"
        )
    return _on_cpu([states[layer] for layer in wanted])


def _keep(
    states: dict[int, Tensor], layer: int, positions: Sequence[int | range], held: int
) -> Callable[[Tensor], None]:
    """Stores what passes by, at `positions`; on the CPU if it is more than `held` bytes."""

    def keep(hidden: Tensor) -> None:
        selected = _select(hidden, positions)
        states[layer] = selected if selected.numel() * selected.element_size() <= held else selected.cpu()

    return keep


def _select(hidden: Tensor, positions: Sequence[int | range]) -> Tensor:
    """`[1, sequence, hidden]` (`[sequence, hidden]` in OPT's MLP) → `[len(positions), hidden]` where it is, copied."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    exact = torch.promote_types(hidden.dtype, torch.float32)
    first = torch.tensor([position.start if isinstance(position, range) else position for position in positions])
    selected = rows[sent(first, rows.device, torch.long)]
    for number, position in enumerate(positions):
        if isinstance(position, range):
            selected[number] = rows[position.start : position.stop : position.step].mean(dim=0, dtype=exact)
    return selected


def _on_cpu(states: Sequence[Tensor]) -> Tensor:
    """States `[n, hidden]` as `[layers, n, hidden]` on the CPU: by one copy, from several devices by one each."""
    if len({each.device for each in states}) > 1:
        states = [each.cpu() for each in states]
    return torch.stack(list(states)).cpu()


def _beside_embeddings(model: nn.Module, input_ids: Tensor) -> Tensor:
    """The ids where the embedding matrix is; weights that accelerate has offloaded ("meta") come to the ids instead."""
    device = model.get_input_embeddings().weight.device
    return input_ids if device.type == "meta" else input_ids.to(device)


def _position(token: int | range, length: int) -> int | range:
    if not isinstance(token, range):
        return _in_range("token", token, length)
    if len(token) == 0 or min(token) < 0 or max(token) >= length:
        raise ValueError(f"{token} is no span of tokens: there are {length}, 0 to {length - 1}")
    return token if token.step > 0 else token[::-1]


def _in_range(what: str, index: int, size: int) -> int:
    if not -size <= index < size:
        raise ValueError(f"{what} {index} is out of range: there are {size}, 0 to {size - 1}")
    return index % size
