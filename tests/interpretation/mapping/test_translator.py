"""A translator is fitted through the model, on what the model samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.mapping import translator
from transformers.interpretation.mapping.affine import AffineMap, MappingError
from transformers.interpretation.mapping.training_text import OwnTextSettings, sample_own_text
from transformers.interpretation.mapping.translator import (
    Translator,
    TranslatorSettings,
    fit_translator,
    load_maps,
    save_maps,
)
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPromptSpec("short", text="ab: _").build(TOKENIZER)
TEXT = OwnTextSettings(texts_per_opening=1, text_tokens=16, most_per_token=1000)
SMALL = TranslatorSettings(TEXT, steps=40, batch_size=32, learning_rate=0.01)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def random_translator(hidden):
    """None of its tensors is zero."""
    made = Translator(hidden).requires_grad_(False)
    for tensor in made.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return made


def test_it_begins_as_a_multiple_of_the_identity():
    states = torch.randn(20, 6) * 5 + 3
    with torch.no_grad():
        torch.testing.assert_close(Translator.beginning(states)(states), translator.START * states)


def test_it_computes_what_its_docstring_says():
    made = random_translator(4).double()  # in float32 a norm over nearly equal numbers may round by more than this
    mean, scale, turn, shift, up, lift, down = (
        getattr(made, name).numpy() for name in ("mean", "scale", "turn", "shift", "up", "lift", "down")
    )
    states = torch.randn(3, 4, dtype=torch.float64)
    for state, found in zip(states.numpy(), made(states).numpy()):
        z = (state - mean) / scale
        normed = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
        units = normed @ up + lift
        units = units * (1 + np.vectorize(math.erf)(units / np.sqrt(2))) / 2
        np.testing.assert_allclose(found, z @ turn + shift + units @ down, rtol=1e-9, atol=1e-10)


def test_vectors_of_another_size_are_an_error():
    with pytest.raises(MappingError, match="size 5 for a translator of 4"):
        random_translator(4)(torch.randn(2, 5))


def test_the_model_says_more_of_what_it_puts_next_and_keeps_its_weights(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    maps = fit_translator(
        model,
        TOKENIZER,
        PROMPT,
        source_layers=[3],
        insert_layer=0,
        settings=SMALL,
        on_step=lambda layer, step, loss: losses.append((layer, step, loss)),
    )
    assert [(layer, step) for layer, step, _ in losses] == [(3, step) for step in range(40)]
    assert sum(loss for *_, loss in losses[-5:]) < 0.97 * sum(loss for *_, loss in losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
    assert not any(parameter.requires_grad for parameter in maps[3].parameters())
    spoken = sample_own_text(model, TOKENIZER, [3], TEXT)
    shared = translator._read_beginning(model, PROMPT)
    with torch.no_grad():
        found, start = (
            float(
                torch.nn.functional.cross_entropy(
                    translator._logits_after(model, PROMPT, mapped, 0, shared), spoken.tokens[:, 0]
                )
            )
            for mapped in (maps[3](spoken.states[3]), translator.START * spoken.states[3])
        )
    assert found < start - 0.01


def test_maps_of_both_kinds_come_back_from_their_file(tmp_path):
    maps = {12: random_translator(4), 5: AffineMap(torch.randn(4, 4), torch.randn(4)), 3: random_translator(4)}
    save_maps(maps, tmp_path / "maps.safetensors")
    found = load_maps(tmp_path / "maps.safetensors")
    assert list(found) == [3, 5, 12]
    states = torch.randn(2, 4)
    for layer in maps:
        assert torch.equal(found[layer](states), maps[layer](states))
        assert not found[layer](states).requires_grad


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense that is no safetensors file",
        {"weight": torch.zeros(4, 4), "bias": torch.zeros(4)},
        {"3.weight": torch.zeros(4, 4)},
        {"3.mean": torch.zeros(4), "3.scale": torch.zeros(())},
        {"3.weight": torch.zeros(4, 4), "3.bias": torch.zeros(4), "3.more": torch.zeros(4)},
    ],
)
def test_another_file_is_an_error(tmp_path, content):
    path = tmp_path / "maps.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(MappingError, match="no maps by source layer"):
        load_maps(path)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="at least one"):
        TranslatorSettings(**wrong)
