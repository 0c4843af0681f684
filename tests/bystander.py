"""Another thread that runs the plain model, in the middle of each pass of this one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.interpretation.models.families import decoder_layers

IDS = torch.tensor([[7, 11, 5, 23, 42, 9]])


@contextmanager
def bystander(model: nn.Module) -> Iterator[list[bool]]:
    """Inside the context, whenever this thread has run the model's first or last decoder layer, another thread makes a
    plain pass of its own. Yields whether each of them gave what the model gives when nobody else runs it."""
    with torch.no_grad():
        quiet = _pass(model)
    found: list[bool] = []
    here = threading.get_ident()

    def meanwhile(*_: object) -> None:
        if threading.get_ident() == here:
            thread = threading.Thread(target=compare)
            thread.start()
            thread.join()

    @torch.no_grad()
    def compare() -> None:
        try:
            found.append(all(torch.equal(one, other) for one, other in zip(_pass(model), quiet)))
        except Exception:  # an exception in a thread would go unnoticed
            found.append(False)

    layers = decoder_layers(model)
    handles = [layer.register_forward_hook(meanwhile) for layer in (layers[0], layers[-1])]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _pass(model: nn.Module) -> list[torch.Tensor]:
    """Logits, loss, and all hidden states."""
    output = model(IDS, labels=IDS, output_hidden_states=True, use_cache=False)
    return [model(IDS, use_cache=False).logits, output.logits, output.loss, *output.hidden_states]
