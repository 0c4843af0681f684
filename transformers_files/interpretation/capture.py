"""Hidden embeddings of a prompt: only the layers and tokens asked for, in one pass.

states = capture(model, input_ids, layers=[0, 10, 20], tokens=[-1])  # [3, 1, hidden]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .families import decoder, decoder_layers


def capture(model: nn.Module, input_ids: Tensor, layers: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """What a plain forward calls `hidden_states[layer][0, token]`, for each of the layers and tokens.

    The pass runs the decoder without the output matrix, and keeps nothing but what is asked for.

    Args:
        model: a causal language model.
        input_ids: `[1, sequence]`.
        layers: 0 … n_layers, in any order: the input of that decoder layer; n_layers is the state after the final norm.
            Negative ones count from the end.
        tokens: positions in the sequence, in any order. Negative ones count from the end.

    Returns:
        `[len(layers), len(tokens), hidden]` on the CPU, in the model's dtype.

    Raises:
        ValueError: `input_ids` is not one sequence, no layer is given, or a layer or token is out of range.
        RuntimeError: a layer never ran as a module of its own.
    """
    if input_ids.ndim != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] == 0:
        raise ValueError(f"capture takes input_ids of shape [1, sequence], not {list(input_ids.shape)}")
    if len(layers) == 0:
        raise ValueError("capture needs at least one layer")
    owner, modules = decoder(model), decoder_layers(model)
    last = len(modules)
    wanted = [_in_range("layer", layer, last + 1) for layer in layers]
    columns = torch.tensor([_in_range("token", token, input_ids.shape[1]) for token in tokens], dtype=torch.long)

    states: dict[int, Tensor] = {}
    handles = [
        modules[layer].register_forward_pre_hook(_keep_input(states, layer, columns), with_kwargs=True)
        for layer in set(wanted) - {last}
    ]
    try:
        with torch.no_grad():
            output = owner(input_ids=_beside_embeddings(model, input_ids), use_cache=False, return_dict=True)
    finally:
        for handle in handles:
            handle.remove()
    if last in wanted:
        states[last] = _select(output.last_hidden_state, columns)
    missing = sorted(set(wanted) - states.keys())
    if missing:
        raise RuntimeError(f"the hidden states of layers {missing} were not seen: is the decoder itself compiled?")
    return torch.stack([states[layer] for layer in wanted])


def _keep_input(states: dict[int, Tensor], layer: int, columns: Tensor) -> Callable[..., None]:
    """A pre-hook that stores the layer's input at `columns`; passes of other threads are not ours."""
    thread = threading.get_ident()

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            states[layer] = _select(args[0] if args else kwargs["hidden_states"], columns)

    return before


def _select(hidden: Tensor, columns: Tensor) -> Tensor:
    """`[1, sequence, hidden]` → `[len(columns), hidden]` on the CPU."""
    return hidden[0, columns.to(hidden.device)].cpu()


def _beside_embeddings(model: nn.Module, input_ids: Tensor) -> Tensor:
    """The ids where the embedding matrix is; weights that accelerate has offloaded ("meta") come to the ids instead."""
    device = model.get_input_embeddings().weight.device
    return input_ids if device.type == "meta" else input_ids.to(device)


def _in_range(what: str, index: int, size: int) -> int:
    if not -size <= index < size:
        raise ValueError(f"{what} {index} is out of range: there are {size}, 0 to {size - 1}")
    return index % size
