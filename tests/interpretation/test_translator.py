"""A translator is fitted through the model, on what the model samples."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import translator
from transformers.interpretation.capture import capture
from transformers.interpretation.mapping import AffineMap, MappingError
from transformers.interpretation.prompts import InterpretationPromptSpec
from transformers.interpretation.translator import TranslatorSettings, fit_translator, load_maps, save_maps

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPromptSpec("short", text="ab: _").build(TOKENIZER)
SMALL = TranslatorSettings(texts_per_opening=1, text_tokens=16, steps=40, batch_size=32, most_per_token=1000)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def test_states_and_next_tokens_are_those_of_the_sampled_texts(model, monkeypatch):
    """Read again without a cache, every state stands where it was taken from, with the token that comes next there."""
    texts = []
    sample = torch.multinomial

    def remember(*arguments, **options):
        drawn = sample(*arguments, **options)
        texts.append(drawn)
        return drawn

    monkeypatch.setattr(translator, "OPENINGS", ("ab", "cd"))
    monkeypatch.setattr(torch, "multinomial", remember)
    states, tokens = translator.sample_states(model, TOKENIZER, [1, 3], SMALL)
    rows = torch.cat([torch.tensor([TOKENIZER.encode("ab"), TOKENIZER.encode("cd")]), *texts], 1)[:, :-1]
    expected = {}
    with torch.no_grad():
        best = model(input_ids=rows).logits.argmax(-1)
    first = 2 - 1 + translator.SKIPPED - 2
    for row in range(2):
        found = capture(model, rows[row : row + 1], [1, 3], range(rows.shape[1]))
        for position in range(first, rows.shape[1]):
            expected[tuple(found[:, position].flatten().round(decimals=2).tolist()[:6])] = int(best[row, position])
    assert len(tokens) == len(expected) == len(states[1]) == len(states[3])
    for state, token in zip(states[1], tokens.tolist()):
        assert expected[tuple(state.round(decimals=2).tolist()[:6])] == token


def test_no_token_comes_too_often():
    tokens = torch.tensor([5] * 20 + [6] * 3 + [7])
    chosen = translator._balanced(tokens, 4, torch.Generator().manual_seed(0))
    assert Counter(tokens[chosen].tolist()) == {5: 4, 6: 3, 7: 1}
    assert len(set(chosen.tolist())) == len(chosen)


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
    states, tokens = translator.sample_states(model, TOKENIZER, [3], SMALL)
    shared = translator._read_beginning(model, PROMPT)
    with torch.no_grad():
        found, start = (
            float(torch.nn.functional.cross_entropy(translator._logits_after(model, PROMPT, mapped, 0, shared), tokens))
            for mapped in (maps[3](states[3]), SMALL.start * states[3])
        )
    assert found < start - 0.01


def test_maps_by_layer_come_back_from_their_file(tmp_path):
    maps = {layer: AffineMap(torch.randn(4, 4), torch.randn(4)) for layer in (3, 12)}
    save_maps(maps, tmp_path / "maps.safetensors")
    found = load_maps(tmp_path / "maps.safetensors")
    assert list(found) == [3, 12]
    for layer in maps:
        assert torch.equal(found[layer].weight, maps[layer].weight)
        assert torch.equal(found[layer].bias, maps[layer].bias)


@pytest.mark.parametrize("content", [b"", b"nonsense that is no safetensors file", None])
def test_another_file_is_an_error(tmp_path, content):
    path = tmp_path / "maps.safetensors"
    if content is None:
        AffineMap(torch.randn(4, 4), torch.randn(4)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(MappingError, match="no maps by source layer"):
        load_maps(path)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"text_tokens": 4}, {"batch_size": 0}, {"texts_per_opening": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="at least one"):
        TranslatorSettings(**wrong)
