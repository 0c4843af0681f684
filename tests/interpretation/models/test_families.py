"""Every family of the table that the installed version has: surgery against the reference, padding, the plain call."""

from __future__ import annotations

import warnings

import pytest
import torch
from reference import layer_list, reference_greedy, reference_pass
from tiny_models import available_families, tiny_model
from torch import nn
from transformers.interpretation.models.families import FAMILIES, UnsupportedModelError, decoder, decoder_layers

HIDDEN = 32
PROMPTS = ([5, 17, 99, 23, 64], [71, 8, 45])  # of different lengths: the second is padded


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


def infos() -> list[dict]:
    """One dict per prompt; positions count from the prompt's end, so they hold with and without padding."""
    return [
        {
            1: ([-4, -2], vectors(2, 0)),
            2: ([-1], vectors(1, 1)),
            "replacing_mode": "normalized",
            "overlay_strength": 0.8,
        },
        {0: ([-3], vectors(1, 2)), 3: ([-1], vectors(1, 3)), "replacing_mode": "addition", "overlay_strength": 1.5},
    ]


def padded() -> dict[str, torch.Tensor]:
    width = max(map(len, PROMPTS))
    return {
        "input_ids": torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS]),
        "attention_mask": torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS]),
    }


@pytest.fixture(scope="module", params=[family.model_type for family in available_families()])
def model(request):
    return tiny_model(request.param)


def test_the_forward_pass_equals_the_reference(model):
    for prompt, info in zip(PROMPTS, infos()):
        states, logits = reference_pass(model, prompt, info)
        with torch.no_grad():
            plain = model(torch.tensor([prompt])).logits[0]
            output = model.forward_interpret(torch.tensor([prompt]), insert_info=[info], output_hidden_states=True)
        torch.testing.assert_close(output.logits[0], logits, atol=1e-4, rtol=1e-4)
        assert len(output.hidden_states) == len(states) + 1
        for recorded, state in zip(output.hidden_states, states):
            torch.testing.assert_close(recorded[0], state, atol=1e-4, rtol=1e-4)
        assert (plain - logits).abs().max() > 1e-2


def test_greedy_in_a_left_padded_batch_equals_the_reference_row_by_row(model):
    generated = model.generate_interpret(**padded(), insert_info=infos(), max_new_tokens=6, do_sample=False)
    for row, (prompt, info) in enumerate(zip(PROMPTS, infos())):
        expected = reference_greedy(model, prompt, info, 6)
        found = generated[row, padded()["input_ids"].shape[1] :].tolist()
        if 2 in expected:
            expected = expected[: expected.index(2) + 1] + [0] * (5 - expected.index(2))
        assert found[: len(expected)] == expected[: len(found)]


def test_nothing_to_insert_is_the_plain_call(model):
    batch = padded()
    with torch.no_grad():
        plain = model(**batch).logits
        for nothing in (None, [{}, {}]):
            assert torch.equal(model.forward_interpret(**batch, insert_info=nothing).logits, plain)
    assert torch.equal(
        model.generate_interpret(**batch, insert_info=[{}, {}], max_new_tokens=4, do_sample=False),
        model.generate(**batch, max_new_tokens=4, do_sample=False),
    )


def test_the_look_up_finds_the_layers_without_a_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = decoder_layers(model)
        owner = decoder(model)
    assert layers is layer_list(model)
    assert any(child is layers for child in owner.children())


LLAMA_SHAPES = {
    "one key/value head": {"num_key_value_heads": 1},
    "all key/value heads": {"num_key_value_heads": 4},
    "tied embeddings": {"tie_word_embeddings": True},
    "rope scaling": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "another rope base": {"rope_theta": 500000.0},
}


@pytest.mark.parametrize("shape", LLAMA_SHAPES)
def test_llama_in_all_its_shapes(shape):
    model = tiny_model(**LLAMA_SHAPES[shape])
    for prompt, info in zip(PROMPTS, infos()):
        found = model.generate_interpret(torch.tensor([prompt]), insert_info=[info], max_new_tokens=5, do_sample=False)
        expected = reference_greedy(model, prompt, info, 5)
        assert found[0, len(prompt) :].tolist() == expected[: found.shape[1] - len(prompt)]


def test_the_table_names_each_family_once():
    assert len({family.model_type for family in FAMILIES}) == len(FAMILIES)


def test_the_decoder_alone_is_understood():
    model = tiny_model()
    assert decoder(model.model) is model.model


def test_a_model_outside_the_table_works_with_a_warning():
    model = tiny_model()
    model.config.model_type = "unheard-of"
    with pytest.warns(UserWarning, match="unheard-of is not among the tested families"):
        logits = model.forward_interpret(torch.tensor([PROMPTS[0]]), insert_info=infos()[:1]).logits
    torch.testing.assert_close(logits[0], reference_pass(model, PROMPTS[0], infos()[0])[1], atol=1e-4, rtol=1e-4)


class Odd(nn.Module):
    """A model that keeps its layers where the look-up does not find them."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Module()
        self.inside.stack = nn.ModuleList([nn.Linear(2, 2)])


def test_a_model_that_is_not_understood_says_what_to_do():
    model = Odd()
    with pytest.raises(
        UnsupportedModelError, match=r"Odd\) were not found; .*interpretation_layers = \"path.to.layers\""
    ):
        decoder_layers(model)
    model.interpretation_layers = "inside.stack"
    assert decoder_layers(model) is model.inside.stack
    assert decoder(model) is model.inside


@pytest.mark.parametrize(
    ("path", "message"),
    [("inside.layers", r"'inside.layers': .*no attribute 'layers'"), ("inside", r"is a Module, not an nn.ModuleList")],
)
def test_a_wrong_path_is_named(path, message):
    model = Odd()
    model.interpretation_layers = path
    with pytest.raises(UnsupportedModelError, match=message):
        decoder_layers(model)


def test_encoder_decoder_models_are_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    tiny = T5Config(vocab_size=16, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(UnsupportedModelError, match="t5 is an encoder-decoder model; only decoder-only models"):
        decoder_layers(T5ForConditionalGeneration(tiny))
