"""What is read within a layer: against the layer's own arithmetic, redone from its named parts, for every family."""

from __future__ import annotations

import pytest
import torch
from reference import layer_list
from tiny_models import available_families, tiny_model
from torch import nn
from transformers.interpretation.models.activations import capture
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.hook_points import hook_point_module
from transformers.interpretation.models.places import HOOK_POINTS

IDS = torch.tensor([[5, 9, 17, 33, 65, 9, 12]])
TOKENS = range(7)
WITHIN = [place for place in HOOK_POINTS if not place.startswith("residual")]
# residual_mid: tests/interpretation/surgery/test_residual_mid.py
# (norm behind the attention, norm behind the MLP) of the families that have them
BEHIND = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}
VARIANTS = [
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"parallel_attn": False}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("stablelm", {"use_parallel_residual": True}),
    ("granite", {"residual_multiplier": 0.5}),
]
AVAILABLE = [family.model_type for family in available_families()]


def redone_mlp(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the layer's MLP makes of `x`, `[1, sequence, hidden]`."""
    if hasattr(layer, "fc1"):  # OPT
        return layer.fc2(layer.activation_fn(layer.fc1(x)))
    mlp = layer.mlp if hasattr(layer, "mlp") else layer.block_sparse_moe
    output = mlp(x, torch.zeros_like(x)) if type(mlp).__name__ == "BloomMLP" else mlp(x)
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def assert_adds_up(model):
    """Residual stream in, plus attention, plus MLP of what the MLP was given, is the residual stream out."""
    layers = layer_list(model)
    states = model(IDS, output_hidden_states=True).hidden_states
    attention, given, returned, out = (capture(model, IDS, range(4), TOKENS, place) for place in WITHIN)
    behind = BEHIND.get(model.config.model_type, (None, None))
    multiplier = getattr(model.config, "residual_multiplier", 1.0)
    for number, layer in enumerate(layers):
        torch.testing.assert_close(redone_mlp(layer, given[number : number + 1])[0], returned[number])
        parts = [
            part if norm is None else getattr(layer, norm)(part)
            for part, norm in zip((attention[number], returned[number]), behind)
        ]
        expected = states[number][0] + multiplier * sum(parts)
        torch.testing.assert_close(expected, out[number], atol=1e-4, rtol=1e-4)
        if number + 1 < len(layers):  # the last hidden state is after the final norm
            assert torch.equal(out[number], states[number + 1][0])
        assert min(part[number].abs().max() for part in (attention, given, returned)) > 1e-3


@pytest.mark.parametrize("family", AVAILABLE)
def test_the_parts_of_a_layer_add_up(family):
    assert_adds_up(tiny_model(family))


@pytest.mark.parametrize(("family", "shape"), [variant for variant in VARIANTS if variant[0] in AVAILABLE])
def test_the_parts_add_up_in_other_shapes_of_a_family(family, shape):
    assert_adds_up(tiny_model(family, **shape))


@pytest.mark.parametrize(("place", "path"), [("attention_output", "self_attn"), ("mlp_output", "mlp")])
def test_the_last_layer_too_and_any_tokens(place, path):
    model = tiny_model()
    seen = []
    handle = model.model.layers[3].get_submodule(path).register_forward_hook(lambda *args: seen.append(args[-1]))
    try:
        model(IDS)
    finally:
        handle.remove()
    expected = (seen[0][0] if isinstance(seen[0], tuple) else seen[0])[0].detach()
    assert torch.equal(capture(model, IDS, [-1], [6, 0, 3], place)[0], expected[[6, 0, 3]])


def test_no_hooks_stay_behind():
    model = tiny_model()

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.layers.modules())

    capture(model, IDS, [0], [0])  # the library sets its own hooks at the first pass
    before = hooks()
    for place in HOOK_POINTS:
        capture(model, IDS, [0, 2], [0], place)
        with pytest.raises(Exception):  # noqa: B017 – whatever the version's embedding raises
            capture(model, torch.tensor([[10**6]]), [0, 2], [0], place)
    assert hooks() == before


@pytest.mark.parametrize(
    ("place", "layers", "message"),
    [
        ("mlp", [0], "place is 'mlp': use one of residual, attention_output, residual_mid, mlp_input, "),
        ("mlp", [4], "place is 'mlp'"),
        ("mlp_output", [4], "layer 4 is out of range: there are 4, 0 to 3"),
    ],
)
def test_hook_points_that_do_not_exist(place, layers, message):
    with pytest.raises(ValueError, match=message):
        capture(tiny_model(), IDS, layers, [0], place)


def test_a_layer_that_is_not_understood_says_what_to_do():
    model = nn.Module()
    model.stack = nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])
    model.interpretation_layers = "stack"
    with pytest.raises(
        UnsupportedModelError,
        match=r"mlp_output of layer 0 was not found in a Sequential \(it has 0\); .*"
        r'interpretation_places = {"mlp_output": "path.within.a.layer"} \(the module that returns it\)',
    ):
        hook_point_module(model, 0, "mlp_output")
    model.interpretation_places = {"mlp_output": "0", "mlp_input": "1"}
    assert hook_point_module(model, 0, "mlp_output") is model.stack[0][0]
    with pytest.raises(UnsupportedModelError, match=r"mlp_input of layer 0 is no 1 .*\(the module that is given it\)"):
        hook_point_module(model, 0, "mlp_input")
