"""Lenses: affine maps from a layer to the output of the last one, read with the model's own final norm and head.

    texts = sample_texts(model, tokenizer, OwnTextSettings(texts_per_opening=2, text_tokens=48))
    lens = fit_tuned_lens(model, texts, layers=[12, 24])         # or fit_jacobian_lens(…)
    read_out(model, lens.maps[24](states))                       # logits, as if the model ended after layer 24
    lens.save("lens.safetensors"); Lens.load("lens.safetensors").check(model)

The logit lens reads states as they are; these two are what it is improved by: the tuned lens (Belrose and others 2023,
arXiv:2303.08112), trained to predict the model's own output, and the Jacobian lens, which is not trained: the average
derivative of the last layer's output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.families import decoder, decoder_layers
from ..models.forward import input_device, read_out
from ..models.thread_hooks import input_hook, output_hook
from .affine import AffineMap, MappingError
from .probe import PROBE, check_probe, probe_of, read_probe
from .training_text import SKIPPED
from .translator import frozen, load_maps, save_maps

TUNED, JACOBIAN = "tuned", "jacobian"
KINDS = (TUNED, JACOBIAN)
JACOBIAN_SKIPPED = 16
"""Positions at a text's beginning that the Jacobian lens leaves out."""
ROWS = 8
"""Texts that are read at once."""
READ_AT_ONCE = 64
"""Rows of logits that are held at once."""


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens of either kind."""

    kind: str
    """One of `KINDS`."""
    maps: Mapping[int, AffineMap]
    """Source layer (index into the hidden states, the last left out) → map to the last decoder layer's output."""
    probe: tuple[float, ...]
    """By which it knows its model; see `check`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MappingError(f"a lens is {' or '.join(KINDS)}, not {self.kind!r}")

    def save(self, path: str | Path) -> None:
        """As maps by source layer, in safetensors; the header says that it is a lens."""
        save_maps(self.maps, path, {"lens": self.kind, PROBE: json.dumps(self.probe)})

    @classmethod
    def load(cls, path: str | Path) -> Lens:
        """Raises MappingError for a file of something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                header = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise MappingError(f"{path} is no lens: {error}") from error
        probe = read_probe(path)
        if "lens" not in header or probe is None:
            raise MappingError(f"{path} is no lens; scripts/fit_lens.py fits one")
        return cls(header["lens"], load_maps(path), probe)

    def check(self, model: nn.Module) -> None:
        """Raise MappingError unless the lens was fitted on this model: read by another's head it would say nothing."""
        hidden = model.get_input_embeddings().embedding_dim
        layers, sizes = len(decoder_layers(model)), {len(one.bias) for one in self.maps.values()}
        if sizes != {hidden} or not all(0 <= layer < layers for layer in self.maps):
            raise MappingError(
                f"the {self.kind} lens is of layers {sorted(self.maps)} and hidden size {sorted(sizes)}; the model has "
                f"layers 0 to {layers - 1} and {hidden}"
            )
        check_probe(self.probe, model, f"the {self.kind} lens")


@dataclass(frozen=True)
class TunedLensSettings:
    """How a tuned lens is fitted."""

    steps: int = 150
    batch_size: int = 64
    learning_rate: float = 0.003

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(f"{self}: at least one step and state")


def fit_tuned_lens(
    model: nn.Module,
    texts: Tensor,
    layers: Sequence[int],
    settings: TunedLensSettings | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Lens:
    """h + W h + b for each layer, of which the model's norm and head make its own distribution: least divergence
    KL(model ‖ lens) by Adam, from the logit lens (W = 0, b = 0) on. The same on every call.

    Args:
        model: in evaluation mode; its weights stay as they are.
        texts: token ids `[n, tokens]`; the first positions of each are left out.
        layers: decoder layers, whose inputs are read.
        on_step: called with the step and its loss, in nats, averaged over layers.
    """
    settings = settings or TunedLensSettings()
    states = _states(model, texts, layers)
    final, generator = states[len(decoder_layers(model))], torch.Generator().manual_seed(0)
    hidden = final.shape[-1]
    parts = {
        layer: (nn.Parameter(torch.eye(hidden)), nn.Parameter(torch.zeros(hidden))) for layer in sorted(set(layers))
    }
    optimizer = torch.optim.Adam([tensor for pair in parts.values() for tensor in pair])
    with frozen(model):
        for step in range(settings.steps):
            optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - step / settings.steps)
            rows = torch.randint(len(final), (settings.batch_size,), generator=generator)
            optimizer.zero_grad()
            own, total = _own(model, final[rows]), 0.0
            for layer, (weight, bias) in parts.items():
                loss = _divergence(own, read_out(model, states[layer][rows].float() @ weight + bias))
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            on_step(step, total / len(parts))
    maps = {layer: AffineMap(weight.detach(), bias.detach()) for layer, (weight, bias) in parts.items()}
    return Lens(TUNED, maps, probe_of(model))


def fit_jacobian_lens(
    model: nn.Module,
    texts: Tensor,
    layers: Sequence[int],
    on_row: Callable[[int, int], None] = lambda done, rows: None,
) -> Lens:
    """J h for each layer: J the derivative of the last layer's output by the layer's input, summed over the positions
    from the source's on, averaged over source positions and texts.

    Of either, the first 16 positions of a text and its last are left out. As many backward passes as the model has
    dimensions, for each 8 texts.

    Args:
        model, texts, layers: as for `fit_tuned_lens`; texts of more than 17 tokens.
        on_row: called with the number of backward passes done, and of all.
    """
    layers = sorted(set(layers))
    valid = slice(JACOBIAN_SKIPPED, texts.shape[1] - 1)
    positions = valid.stop - valid.start
    if positions < 1:
        raise MappingError(f"texts of {texts.shape[1]} tokens: a Jacobian lens needs {JACOBIAN_SKIPPED + 2}")
    pieces = texts.split(ROWS)
    hidden = model.get_input_embeddings().embedding_dim
    sums = {layer: torch.zeros(hidden, hidden) for layer in layers}
    with frozen(model), torch.enable_grad():
        for number, ids in enumerate(pieces):
            states = _run(model, ids, layers)
            final = states.pop(len(decoder_layers(model)))
            for row in range(hidden):
                target = torch.zeros_like(final)
                target[:, valid, row] = 1
                gradients = torch.autograd.grad(final, [states[layer] for layer in layers], target, retain_graph=True)
                for layer, gradient in zip(layers, gradients):
                    sums[layer][row] += gradient[:, valid].float().sum((0, 1)).cpu()
                on_row(number * hidden + row + 1, len(pieces) * hidden)
    maps = {layer: AffineMap(total.T / (positions * len(texts)), torch.zeros(hidden)) for layer, total in sums.items()}
    return Lens(JACOBIAN, maps, probe_of(model))


@torch.no_grad()
def lens_losses(model: nn.Module, texts: Tensor, maps: Mapping[int, AffineMap]) -> dict[int, tuple[float, float]]:
    """Layer → KL(model ‖ logit lens) and KL(model ‖ lens) on texts, in nats, averaged over positions."""
    states = _states(model, texts, list(maps))
    final = states[len(decoder_layers(model))]
    totals = {layer: [0.0, 0.0] for layer in maps}
    for rows in torch.arange(len(final)).split(READ_AT_ONCE):
        own = _own(model, final[rows])
        for layer, one in maps.items():
            for which, mapped in enumerate((states[layer][rows], one(states[layer][rows]))):
                totals[layer][which] += float(_divergence(own, read_out(model, mapped))) * len(rows)
    return {layer: (plain / len(final), mapped / len(final)) for layer, (plain, mapped) in totals.items()}


@torch.no_grad()
def _own(model: nn.Module, final: Tensor) -> Tensor:
    """The model's own log probabilities, of the last layer's outputs `[n, hidden]`."""
    return read_out(model, final).log_softmax(-1)


def _divergence(own: Tensor, logits: Tensor) -> Tensor:
    """KL(model ‖ lens), averaged: own log probabilities and a lens's logits, both `[n, vocabulary]`."""
    return (own.exp() * (own - logits.log_softmax(-1))).sum(-1).mean()


@torch.no_grad()
def _states(model: nn.Module, texts: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """Inputs of these layers and the output of the last, `[n, hidden]` on the CPU, the first positions left out."""
    seen: dict[int, list[Tensor]] = {}
    for ids in texts.split(ROWS):
        for layer, states in _run(model, ids, layers).items():
            seen.setdefault(layer, []).append(states[:, SKIPPED:].flatten(0, 1).cpu())
    return {layer: torch.cat(parts) for layer, parts in seen.items()}


def _run(model: nn.Module, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """One pass over ids `[rows, tokens]`: the inputs of these layers and, as the layer after all, the last's output;
    each `[rows, tokens, hidden]`, differentiable from the first of them on where gradients are wanted."""
    modules, states = decoder_layers(model), {}

    def keep(layer: int) -> Callable[[Tensor], None]:
        def see(hidden: Tensor) -> None:
            states[layer] = hidden
            if torch.is_grad_enabled() and not hidden.requires_grad:
                hidden.requires_grad_()

        return see

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(input_hook(modules[layer], keep(layer)))
        hooks.enter_context(output_hook(modules[-1], keep(len(modules))))
        decoder(model)(input_ids=ids.to(input_device(model)), use_cache=False, return_dict=True)
    return states
