"""Sparse autoencoders: what they compute against loops, what training reaches, and their files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.interpretation.features.sparse_autoencoder import SaeSettings, SparseAutoencoder, load, save, train
from transformers.interpretation.vectors.formats import open_vectors
from transformers.interpretation.vectors.vector_file import VectorsError

HIDDEN, FEATURES = 6, 10


def autoencoder(**changes):
    generator = torch.Generator().manual_seed(0)
    sizes = (HIDDEN, FEATURES), (FEATURES,), (FEATURES, HIDDEN), (HIDDEN,)
    return SparseAutoencoder(*(torch.randn(size, generator=generator) for size in sizes), **changes)


def slow(sae, state):
    """One feature at a time."""
    x = state - sae.decoder_bias if sae.subtracts_bias else state
    before = [float(x @ sae.encoder[:, one] + sae.encoder_bias[one]) for one in range(FEATURES)]
    best = sorted(range(FEATURES), key=lambda one: -before[one])[: sae.active or FEATURES]
    found = []
    for one, value in enumerate(before):
        is_kept = one in best and value > 0
        if sae.threshold is not None:
            is_kept = value > max(0.0, float(sae.threshold[one]))
        found.append(value if is_kept else 0.0)
    return found


@pytest.mark.parametrize(
    "changes", [{"active": 3}, {}, {"threshold": torch.linspace(-1, 2, FEATURES)}, {"subtracts_bias": False}], ids=str
)
def test_activations(changes):
    sae = autoencoder(**changes)
    states = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([slow(sae, state) for state in states])
    assert torch.allclose(sae.activations(states), expected, atol=1e-5)
    made = torch.stack([expected[row] @ sae.decoder + sae.decoder_bias for row in range(5)])
    assert torch.allclose(sae.reconstruction(states), made, atol=1e-5)


def test_training_finds_the_directions_that_states_are_made_of(tmp_path):
    """Each state is the sum of two of twelve directions, far from the origin and large."""
    generator = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator), dim=1)
    chosen = torch.stack([torch.randperm(12, generator=generator)[:2] for _ in range(3000)])
    states = 50 * directions[chosen].sum(1) + 7
    losses = []
    settings = SaeSettings(features=24, active=2, steps=600, batch_size=256, learning_rate=0.01)
    sae = train(states, settings, lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.2 * losses[0]
    assert sae.variance_explained(states) > 0.9
    likeness = torch.nn.functional.normalize(sae.decoder, dim=1) @ directions.T
    assert (likeness.amax(0) > 0.85).all()
    again = train(states, settings)
    assert torch.equal(again.decoder, sae.decoder)


def test_files_are_those_of_saelens(tmp_path):
    sae = autoencoder(active=3)
    save(sae, tmp_path / "sae", model="mine", layer=5)
    assert set(load_file(tmp_path / "sae" / "sae_weights.safetensors")) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    file = open_vectors(tmp_path / "sae")
    assert (file.n, file.hidden, file.origin.layer, file.origin.place, file.origin.model) == (
        10,
        6,
        5,
        "residual",
        "mine",
    )
    assert torch.equal(file.rows(2, 4), sae.decoder[2:4])
    states = torch.randn(5, HIDDEN)
    assert torch.equal(load(tmp_path / "sae").activations(states), sae.activations(states))


def test_other_encoders_are_read_or_refused(tmp_path):
    save(autoencoder(active=3), tmp_path, model="mine", layer=5)
    weights, states = tmp_path / "sae_weights.safetensors", torch.randn(5, HIDDEN)
    plain, config = load_file(weights), json.loads((tmp_path / "cfg.json").read_text())

    def with_config(**changes):
        (tmp_path / "cfg.json").write_text(json.dumps(config | changes))
        return load(tmp_path)

    assert torch.equal(with_config(architecture="standard").activations(states), autoencoder().activations(states))
    threshold = torch.linspace(0, 1, FEATURES)
    save_file(plain | {"threshold": threshold}, weights)
    expected = autoencoder(threshold=threshold).activations(states)
    assert torch.equal(with_config(architecture="jumprelu").activations(states), expected)
    for changes in ({"architecture": "gated"}, {"normalize_activations": "layer_norm"}):
        with pytest.raises(VectorsError, match="expected topk or standard or jumprelu, with none"):
            with_config(**changes)
    weights.unlink()
    with pytest.raises(VectorsError, match="holds no encoder of a SAE"):
        load(tmp_path)


@pytest.mark.parametrize("changes", [{"features": 0}, {"active": 2000}, {"learning_rate": 0}, {"steps": 0}])
def test_settings_that_cannot_be(changes):
    with pytest.raises(ValueError):
        SaeSettings(**changes)
