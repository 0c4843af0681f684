"""States around each MLP against the library's own modules, called one after the other on its hidden states."""

from __future__ import annotations

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.models.families import UnsupportedModelError, decoder, decoder_layers
from transformers.interpretation.models.hook_points import hook_point_module
from transformers.interpretation.models.places import MLP_OUTPUT

IDS = torch.arange(5, 17).reshape(2, 6)
SIDE_BY_SIDE = {"phi", "cohere", "cohere2", "gptj", "codegen", "falcon", "gpt_neox", "olmo2", "olmo3", "opt"}
"""Attention and MLP run in parallel, or the MLP has no norm before it, or is given rows and columns as one (OPT)."""
SCALED = {"gemma2", "gemma3_text", "glm4", "granite"}
"""Something stands between what the MLP returns and the residual stream."""
WITHIN = {"bloom"}
"""Its MLP adds the residual stream by itself, in its last projection's module."""


def info(vector: torch.Tensor, layer: int = 2) -> list:
    return [{layer: ([3], vector), "replacing_mode": "normalized", "overlay_strength": 1.0}, {}]


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
@torch.no_grad()
def test_every_family_returns_them_or_is_refused(family):
    model = tiny_model(family)
    try:
        output, pairs = model.forward_interpret(IDS, output_hidden_states=True, output_pre_mlp_states=True)
    except UnsupportedModelError as error:
        assert family in SIDE_BY_SIDE
        assert "decoder layer 0 of" in str(error)
        assert "no state between attention and MLP" in str(error)
        return
    plain = model(IDS, output_hidden_states=True)
    assert torch.equal(output.logits, plain.logits)
    assert len(pairs) == len(plain.hidden_states) == 5
    assert all(torch.equal(state, plain.hidden_states[0]) for state in pairs[0])
    for layer, (given, residual) in enumerate(pairs[1:-1]):
        assert given.shape == residual.shape == (2, 6, 32)
        assert not torch.equal(residual, plain.hidden_states[layer])
        if family in SCALED | WITHIN:
            continue
        mlp = hook_point_module(model, layer, MLP_OUTPUT)(given)
        added = mlp[0] if isinstance(mlp, tuple) else mlp
        assert torch.allclose(residual + added, plain.hidden_states[layer + 1], atol=1e-5)


@torch.no_grad()
def test_the_norm_of_the_one_is_the_other():
    model = tiny_model()
    _, pairs = model.forward_interpret(IDS, output_pre_mlp_states=True)
    for layer, (given, residual) in zip(decoder_layers(model), pairs[1:]):
        assert torch.equal(layer.post_attention_layernorm(residual), given)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 2])
def test_they_include_the_surgery(layer):
    model, vector = tiny_model(), torch.linspace(-1, 1, 32)
    output, pairs = model.forward_interpret(
        IDS, output_hidden_states=True, output_pre_mlp_states=True, insert_info=info(vector, layer)
    )
    inserted = output.hidden_states[layer]
    assert torch.equal(inserted[0, 3], vector)
    attended = decoder_layers(model)[layer].mlp(pairs[layer + 1][0]) + pairs[layer + 1][1]
    assert torch.allclose(attended, output.hidden_states[layer + 1], atol=1e-6)
    if layer == 0:
        assert torch.equal(pairs[0][0], inserted)


def test_gradients_flow_through_them_and_nothing_stays_behind():
    model, vector = tiny_model(), torch.linspace(-1, 1, 32).requires_grad_()
    _, pairs = model.forward_interpret(IDS, output_pre_mlp_states=True, insert_info=info(vector))
    pairs[4][1].sum().backward()
    assert vector.grad.abs().sum() > 0
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_the_model_within_the_model_has_the_method_too():
    model, vector = tiny_model(), torch.linspace(-1, 1, 32)
    output, pairs = decoder(model).forward_interpret(
        IDS, output_hidden_states=True, output_pre_mlp_states=True, insert_info=info(vector)
    )
    whole = model.forward_interpret(IDS, output_hidden_states=True, insert_info=info(vector))
    assert torch.equal(output.last_hidden_state, whole.hidden_states[-1])
    assert torch.equal(decoder(model).forward_interpret(IDS).last_hidden_state, decoder(model)(IDS).last_hidden_state)
    assert len(pairs) == 5
