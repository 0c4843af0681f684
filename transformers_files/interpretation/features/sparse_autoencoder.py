"""Sparse autoencoders: what their features are worth at a state, a small one trained, and the files of SAELens.

    sae = train(states, SaeSettings())           # [n, hidden] of one layer
    save(sae, Path("sae"), model="SmolLM2-135M", layer=12)
    sae = load(Path("sae"))
    sae.activations(states)                      # [n, features]

A TopK autoencoder (Gao and others 2024, arXiv:2406.04093) keeps the k largest activations of each state. Of other kinds
the encoder is read as well: standard (ReLU) and JumpReLU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..vectors.sae_lens import CONFIG, WEIGHTS
from ..vectors.vector_file import VectorsError

ARCHITECTURES = ("topk", "standard", "jumprelu")


@dataclass(frozen=True)
class SaeSettings:
    """How a small autoencoder is trained."""

    features: int = 1024
    active: int = 16
    """Features that a state may have at once, k."""
    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.features, self.active, self.steps, self.batch_size) < 1 or self.active > self.features:
            raise ValueError(
                f"{self}: at least one feature, step and state, and no more active features than there are"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"{self}: a learning rate above 0")


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """Weights as SAELens names them, float32 on the CPU."""

    encoder: Tensor
    """`W_enc`, `[hidden, features]`"""
    encoder_bias: Tensor
    """`b_enc`, `[features]`"""
    decoder: Tensor
    """`W_dec`, `[features, hidden]`: what each feature writes."""
    decoder_bias: Tensor
    """`b_dec`, `[hidden]`"""
    active: int | None = None
    """Of TopK: how many activations are kept of each state."""
    threshold: Tensor | None = None
    """Of JumpReLU: below it an activation is 0, `[features]`."""
    subtracts_bias: bool = True
    """Whether the decoder's bias is taken from a state before it is encoded."""

    @property
    def n(self) -> int:
        """How many features there are."""
        return len(self.decoder)

    def activations(self, states: Tensor) -> Tensor:
        """`[n, hidden]` → `[n, features]`, float32, none below 0."""
        states = states.float() - self.decoder_bias if self.subtracts_bias else states.float()
        before = states @ self.encoder + self.encoder_bias
        if self.threshold is not None:
            return torch.where(before > self.threshold, before.relu(), 0.0)
        if self.active is None:
            return before.relu()
        kept = before.topk(self.active, -1)
        return torch.zeros_like(before).scatter(-1, kept.indices, kept.values.relu())

    def reconstruction(self, states: Tensor) -> Tensor:
        """`[n, hidden]` → `[n, hidden]`, from the active features alone."""
        return self.activations(states) @ self.decoder + self.decoder_bias

    def variance_explained(self, states: Tensor) -> float:
        """Share of the variance of states `[n, hidden]` that the reconstruction has."""
        states = states.float()
        left = (states - self.reconstruction(states)).square().sum()
        return float(1 - left / (states - states.mean(0)).square().sum())


def train(
    states: Tensor, settings: SaeSettings, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> SparseAutoencoder:
    """A TopK autoencoder of states `[n, hidden]`; the same on every call with as many threads.

    It is trained on states without their mean, in units of their size; what is returned takes the states themselves.
    on_step: called with the step and the share of the variance that is left in its batch.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    mean = states.float().mean(0)
    scale = float((states.float() - mean).norm(dim=1).mean()) / states.shape[1] ** 0.5
    decoder = torch.randn(settings.features, states.shape[1], generator=generator)
    decoder = torch.nn.Parameter(decoder / decoder.norm(dim=1, keepdim=True))
    encoder = torch.nn.Parameter(decoder.detach().T.clone())
    bias, centre = (torch.nn.Parameter(torch.zeros(size)) for size in (settings.features, states.shape[1]))
    optimizer = torch.optim.Adam([encoder, bias, decoder, centre], lr=settings.learning_rate)
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * min(1.0, 5 * (1 - step / settings.steps))
        rows = torch.randint(len(states), (settings.batch_size,), generator=generator)
        batch = (states[rows].float() - mean) / scale
        made = SparseAutoencoder(encoder, bias, decoder, centre, settings.active).reconstruction(batch)
        loss = (batch - made).square().sum() / batch.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decoder.div_(decoder.norm(dim=1, keepdim=True))
        on_step(step, float(loss.detach()))
    with torch.no_grad():
        return SparseAutoencoder(encoder / scale, bias.clone(), decoder * scale, mean + scale * centre, settings.active)


def save(sae: SparseAutoencoder, folder: Path, *, model: str, layer: int) -> None:
    """As SAELens keeps it; layer: the index of the hidden states that it is of, from 1 on."""
    from safetensors.torch import save_file

    tensors = {"W_enc": sae.encoder, "b_enc": sae.encoder_bias, "W_dec": sae.decoder, "b_dec": sae.decoder_bias}
    config = {
        "architecture": "topk",
        "d_in": sae.decoder.shape[1],
        "d_sae": sae.n,
        "k": sae.active,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"model_name": model, "hook_name": f"blocks.{layer - 1}.hook_resid_post"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> SparseAutoencoder:
    """From the folder of a SAE as SAELens keeps it. Raises VectorsError for another kind than `ARCHITECTURES`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        kind = config.get("architecture", "standard")
        if kind not in ARCHITECTURES or config.get("normalize_activations", "none") != "none":
            normalizing = config.get("normalize_activations", "none")
            raise VectorsError(
                f"{folder}: its encoder is {kind}, with normalize_activations {normalizing}; expected "
                f"{' or '.join(ARCHITECTURES)}, with none"
            )
        return SparseAutoencoder(
            tensors["W_enc"],
            tensors["b_enc"],
            tensors["W_dec"],
            tensors["b_dec"],
            int(config["k"]) if kind == "topk" else None,
            tensors["threshold"] if kind == "jumprelu" else None,
            bool(config.get("apply_b_dec_to_input", True)),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, VectorsError):
            raise
        raise VectorsError(f"{folder} holds no encoder of a SAE: {error!r}") from error
