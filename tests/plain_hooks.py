"""The reference of `model_checks`: plain torch hooks around the library's own passes and its own decoding."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PROMPT = tuple(range(5, 25))
"""Longer than the windows of the tiny models."""
PLACES = (13, 14)
INSERT_LAYER = 1
NEW_TOKENS = 5
GREEDY = {"do_sample": False, "num_beams": 1, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}


def whole_pass(model: nn.Module) -> Any:
    """A pass over the prompt that keeps no cache."""
    return model(input_ids=torch.tensor([PROMPT]), **without_cache(model))


def without_cache(model: nn.Module) -> dict[str, bool]:
    """GPT-1 has no cache, and on older versions knows no such option."""
    taken = inspect.signature(type(model).forward).parameters
    return {"use_cache": False} if {"use_cache", "kwargs"} & set(taken) else {}


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList, tuple[int, ...]]:
    """Path of the longest list of modules that a pass runs once, the list, and the shape of its second's input."""
    seen: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    handles = []
    for name, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList) or len(modules) < 2:
            continue
        for index, module in enumerate(modules):

            def note(_: Any, args: tuple, kwargs: dict, name: str = name, index: int = index) -> None:
                given = args[0] if args else kwargs.get("hidden_states")
                if isinstance(given, Tensor) and given.is_floating_point():
                    seen.setdefault(name, []).append((index, tuple(given.shape)))

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        whole_pass(model)
    finally:
        for handle in handles:
            handle.remove()
    ran = {name: runs for name, runs in seen.items() if INSERT_LAYER in dict(runs)}
    whole = {
        name: runs
        for name, runs in ran.items()
        if [index for index, _ in runs].count(INSERT_LAYER) == 1 and len(PROMPT) in runs[0][1]
    } or ran  # what is not given one embedding per token, once, is to be refused
    path = min(whole, key=lambda name: (-len(whole[name]), name.count("."), name))
    return path, model.get_submodule(path), dict(whole[path])[INSERT_LAYER]


@contextlib.contextmanager
def inserting(layers: nn.ModuleList, vector: Tensor | None) -> Iterator[None]:
    """Overwrite the two places with the vector in every pass that reads the prompt; nothing for None."""

    def before(_: nn.Module, args: tuple, kwargs: dict) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if vector is None or hidden.shape[1] < len(PROMPT):
            return None
        hidden = hidden.clone()
        hidden[:, list(PLACES)] = vector
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    handle = layers[INSERT_LAYER].register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def decoded(
    model: nn.Module,
    layers: nn.ModuleList,
    vector: Tensor | None,
    forced: Sequence[int] = (),
    *,
    use_cache: bool = True,
) -> tuple[list[int], Tensor]:
    """Tokens, and logits [new tokens, vocabulary], of the library's greedy decoding; or of the `forced` tokens."""
    from transformers import LogitsProcessorList

    logits: list[Tensor] = []

    def only(ids: Tensor, scores: Tensor) -> Tensor:
        logits.append(scores.clone())
        if not forced:
            return scores
        wanted = torch.full_like(scores, -torch.inf)
        wanted[:, forced[ids.shape[1] - len(PROMPT)]] = 0.0
        return wanted

    with inserting(layers, vector):
        processors = LogitsProcessorList([only])
        ids = model.generate(torch.tensor([PROMPT]), logits_processor=processors, use_cache=use_cache, **GREEDY)
    return ids[0, len(PROMPT) :].tolist(), torch.cat(logits).float()
