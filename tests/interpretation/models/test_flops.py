"""Parameters, cache and operations as counted from modules equal those of real passes."""

from __future__ import annotations

import pytest
import torch
from tiny_models import available_families, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.flops import ModelSize, Rate, Work
from transformers.interpretation.models.kv_cache import bytes_by_device, cache_beside, cache_in, empty_cache

FAMILIES = [family.model_type for family in available_families()]
OF_EXPERTS = [name for name in FAMILIES if name in ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")]
TOKENS = 10


def model_of(family):
    """As its checkpoints are: only families that know groups of key/value heads have any."""
    known = type(tiny_model(family).config)().to_dict()
    return tiny_model(family, **({} if "num_key_value_heads" in known else {"num_key_value_heads": None}))


@torch.no_grad()
def one_pass(model):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the fused kernel is not counted
        ids = torch.arange(5, 5 + TOKENS)[None]
        out = model(ids, use_cache=True, **cache_beside(model, empty_cache(model), ids))
    return cache_in(out), counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_is_what_the_modules_say(family):
    model = model_of(family)
    size = ModelSize.of(model)
    assert size.parameters == sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())
    cache, operations = one_pass(model)
    try:
        assert sum(bytes_by_device(cache).values()) == 4 * TOKENS * size.cached
    except UnsupportedModelError:
        assert family == "bloom"
    if family not in OF_EXPERTS:
        expected = Work(tokens=TOKENS, logits=TOKENS, pairs=TOKENS**2).operations(size)
        assert operations == pytest.approx(expected, rel=2e-3)  # some turn positions by a matrix product


def experts(family, number):
    return {"num_experts" if family.startswith("qwen") else "num_local_experts": number}


def n_routed(model):
    return sum(any(".experts." in name for name, _ in layer.named_parameters()) for layer in model.model.layers)


if OF_EXPERTS:  # not in the oldest version

    @pytest.mark.parametrize("family", OF_EXPERTS)
    def test_of_experts_those_count_that_a_token_is_sent_to(family):
        model = tiny_model(family)
        chosen = model.config.num_experts_per_tok
        few, many = (ModelSize.of(tiny_model(family, **experts(family, number))).active for number in (4, 8))
        weights = [w for name, w in model.model.layers.named_parameters() if ".experts." in name and w.ndim > 1]
        assert few - sum(w.numel() for w in model.model.layers.parameters() if w.ndim > 1) == pytest.approx(
            -sum(w.numel() for w in weights) * (1 - chosen / 4)
        )
        assert many - few == pytest.approx(4 * model.config.hidden_size * n_routed(model))  # the router alone grows


def test_a_tied_matrix_counts_once():
    model = tiny_model(tie_word_embeddings=True)
    assert ModelSize.of(model).parameters == ModelSize.of(tiny_model()).parameters - 128 * 32
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    assert ModelSize.of(skeleton) == ModelSize.of(model)
    skeleton.lm_head.weight = torch.nn.Parameter(torch.empty(128, 32, device="meta"))  # as on 5.0
    assert ModelSize.of(skeleton) == ModelSize.of(model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5", Rate(12.5, False)),
        ("3e2", Rate(300, False)),
        ("250TFLOP/s", Rate(2.5e14, True)),
        ("1.5 gflops", Rate(1.5e9, True)),
        ("2e9flop/s", Rate(2e9, True)),
    ],
)
def test_rates(text, expected):
    assert Rate.read(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "-3", "0", "0.0", "5 km/h", "5T", "1.5.2"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match="neither a number of interpretations per second nor one of FLOP/s"):
        Rate.read(text)
