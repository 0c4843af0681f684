"""What decoder layers are given: `[rows, columns, hidden size]`, once per pass; or the model is refused by name.

    check_layer_inputs(model)            # before anything is inserted or read
    check_runs_once(model, [1, 12])

Some models carry several residual streams side by side (hyper-connections, AltUp), put columns before rows, loop over
their layers, or skip those that attend to an image where there is none. There, a position in a hidden
state means something else, or nothing. The tested families do none of that. Others are checked once, by a pass over two
rows of three tokens.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .families import (
    UnsupportedModelError,
    base_model,
    decoder,
    decoder_layers,
    forward_parameters,
    is_tested,
)
from .kv_cache import takes_no_cache
from .thread_hooks import input_hook

_ROWS, _COLUMNS = 2, 3


@dataclass(frozen=True)
class _Probe:
    """What one pass over `_ROWS` of `_COLUMNS` tokens gave the layers; a pass that failed tells nothing."""

    shapes: dict[int, tuple[int, ...]]
    """Of the first run of each layer that ran."""
    runs: dict[int, int]


_ASKED: weakref.WeakKeyDictionary[nn.Module, _Probe | None] = weakref.WeakKeyDictionary()
"""A model is asked once."""


def check_layer_inputs(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` where the layers are given something else than `[rows, columns, hidden size]`, or
    where modules remember the rows of the pass before."""
    _check_memory(model)
    probe = _asked(model)
    if probe is None:
        return
    expected = (_ROWS, _COLUMNS, hidden_size(model))
    for layer, shape in probe.shapes.items():
        if shape != expected:
            raise UnsupportedModelError(
                f"decoder layer {layer} of {type(base_model(model)).__name__} is given hidden states of shape "
                f"{list(shape)} for {_ROWS} rows of {_COLUMNS} tokens, where {list(expected)} is one embedding per "
                "token: with several residual streams, or tokens in another dimension, there is no such embedding to "
                "read or replace, so that models of this kind are not supported"
            )


def _check_memory(model: nn.Module) -> None:
    """RecurrentGemma before 5.23: after a pass over two rows, one over a single row without a cache fails."""
    if not is_tested(model) and takes_no_cache(base_model(model)):
        for name, module in model.named_modules():
            if hasattr(module, "recurrent_states"):
                raise UnsupportedModelError(
                    f"{type(base_model(model)).__name__} of this version of transformers keeps the recurrent states of "
                    f"one pass within its modules ({name}), where the next pass meets them; 5.23 or later does not"
                )


def check_evaluation_mode(model: nn.Module) -> None:
    """Raise ValueError for a model, or a part of one, in training mode: dropout would give other numbers every time."""
    for name, module in model.named_modules():
        if module.training:
            part = f"part {name} of the model" if name else "the model"
            raise ValueError(f"{part} is in training mode, with dropout; call model.eval() first")


def check_runs_once(model: nn.Module, layers: Iterable[int]) -> None:
    """Raise `UnsupportedModelError` for a layer that a pass over text runs several times, or not at all."""
    probe = _asked(model)
    if probe is None:
        return
    for layer in layers:
        if (runs := probe.runs.get(layer, 0)) != 1:
            raise UnsupportedModelError(
                f"decoder layer {layer} of {type(base_model(model)).__name__} runs {runs} times in a pass over text, "
                "so that it has no single hidden state of a token at its input; layers that run once: "
                f"{', '.join(str(other) for other, times in sorted(probe.runs.items()) if times == 1) or 'none'}"
            )


def keeping_nothing(module: nn.Module) -> dict[str, bool]:
    """The arguments of a pass through a model, or through its decoder, that keeps no cache."""
    taken = forward_parameters(module).values()
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken)
    names = {parameter.name for parameter in taken}
    wanted = {"use_cache": False, "return_dict": True}
    return {name: value for name, value in wanted.items() if everything or name in names}  # GPT-1 has no cache


def head(model: nn.Module) -> nn.Module:
    """The module that makes logits of hidden states. Raises `UnsupportedModelError` for a model that names none."""
    found = model.get_output_embeddings()
    if found is None:
        raise UnsupportedModelError(
            f"{type(base_model(model)).__name__} does not say which of its modules makes logits of hidden states; its "
            "get_output_embeddings() has to return it"
        )
    return found


def hidden_size(model: nn.Module) -> int:
    """Of the hidden states between the layers."""
    return next(module.config.hidden_size for module in _around_layers(model) if hasattr(module, "config"))


def text_model(model: nn.Module) -> nn.Module:
    """The innermost module that runs the decoder layers and takes token ids."""
    for module in _around_layers(model):
        if "input_ids" in forward_parameters(module):
            return module
    return model


def _around_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The owner of the layers and the modules that it lies in, from the inside to the outside."""
    owner = decoder(model)
    inside = [module for module in model.modules() if any(part is owner for part in module.modules())]
    return reversed(inside)


def _asked(model: nn.Module) -> _Probe | None:
    if is_tested(model):
        return None
    if model not in _ASKED:
        _ASKED[model] = _ask(model)
    return _ASKED[model]


def _ask(model: nn.Module) -> _Probe | None:
    shapes: dict[int, tuple[int, ...]] = {}
    runs: dict[int, int] = {}

    def note(layer: int, hidden: Tensor) -> None:
        shapes.setdefault(layer, tuple(hidden.shape))
        runs[layer] = runs.get(layer, 0) + 1

    weight = model.get_input_embeddings().weight
    device = torch.device("cpu") if weight.device.type == "meta" else weight.device
    ids = torch.arange(_COLUMNS, device=device).expand(_ROWS, -1)
    layers, runner = decoder_layers(model), text_model(model)  # a model without them is refused
    try:
        with ExitStack() as hooks, torch.random.fork_rng(devices=[]), torch.no_grad():
            for layer, module in enumerate(layers):
                hooks.enter_context(input_hook(module, functools.partial(note, layer)))
            runner(input_ids=ids, **keeping_nothing(runner))
    except Exception:  # whatever its own code raises for so short a text: then the passes themselves will tell
        return None
    return _Probe(shapes, runs)
