"""Lenses against slow references on a tiny model: one derivative, one position, one token at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import available_families, tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.mapping import lenses
from transformers.interpretation.mapping.affine import AffineMap, MappingError
from transformers.interpretation.mapping.checkpoint import MapsFile, check_spaces
from transformers.interpretation.mapping.lenses import (
    Lens,
    TunedLensSettings,
    fit_jacobian_lens,
    fit_tuned_lens,
    lens_losses,
)
from transformers.interpretation.mapping.probe import probe_of
from transformers.interpretation.mapping.training_text import SKIPPED, OwnTextSettings, sample_texts
from transformers.interpretation.mapping.translator import save_maps
from transformers.interpretation.models.forward import read_out

TOKENIZER = tiny_tokenizer()
SMALL = TunedLensSettings(steps=60, batch_size=32, learning_rate=0.01)
TEXT = OwnTextSettings(openings=("ab", "cde", "f"), texts_per_opening=6, text_tokens=20)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def texts(model):
    return sample_texts(model, TOKENIZER, TEXT)


def blocks(model, ids, start=0, states=None):
    """Llama's layers one after the other, on `[tokens, hidden]`: each input from `start` on, and the output."""
    hidden = model.model.embed_tokens(ids[None]) if states is None else states[None]
    positions = torch.arange(len(ids))[None]
    rotary = getattr(model.model, "rotary_emb", None)  # each layer's own in 4.34
    given = {} if rotary is None else {"position_embeddings": rotary(hidden, positions)}
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)[None, None]
    seen = [hidden[0]]
    for layer in model.model.layers[start:]:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions, **given)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = hidden if hidden.ndim == 3 else hidden[None]
        seen.append(hidden[0])
    return seen


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
def test_the_last_layers_output_is_read_as_the_model_reads_it(family):
    model, outputs = tiny_model(family), []
    layers = lenses.decoder_layers(model)
    handle = layers[-1].register_forward_hook(
        lambda _, args, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 9, 17, 30, 41]])).logits[0].float()
        handle.remove()
        found = read_out(model, outputs[0].reshape(5, -1))
    torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)
    assert not layers[-1]._forward_hooks


def test_sampled_texts_begin_with_their_openings_and_are_the_same_on_every_call(model, texts):
    again = sample_texts(model, TOKENIZER, TEXT)
    assert torch.equal(texts, again) and texts.shape == (18, 20)
    begun = [TOKENIZER.decode(row[:length]) for length, rows in zip((1, 2, 3), texts.split(6)) for row in rows]
    assert begun == ["f"] * 6 + ["ab"] * 6 + ["cde"] * 6
    assert len(set(map(tuple, texts.tolist()))) > 9


def test_the_jacobian_lens_is_the_derivative_position_by_position(model, texts, monkeypatch):
    """Σ over target positions t ≥ s, the mean over s and texts; 16 … length − 2 on both sides."""
    rows, expected = texts[4:7], {1: torch.zeros(32, 32), 3: torch.zeros(32, 32)}
    for layer, total in expected.items():
        for ids in rows:
            states = blocks(model, ids)[layer].detach()
            whole = torch.autograd.functional.jacobian(
                lambda given, ids=ids, layer=layer: blocks(model, ids, layer, given)[-1], states
            )  # [target position, target dimension, source position, source dimension]
            for source in range(16, 19):
                for target in range(source, 19):
                    total += whole[target, :, source] / (3 * len(rows))
    monkeypatch.setattr(lenses, "ROWS", 2)
    lens = fit_jacobian_lens(model, rows, [3, 1])
    assert (lens.kind, list(lens.maps)) == ("jacobian", [1, 3])
    for layer, jacobian in expected.items():
        torch.testing.assert_close(lens.maps[layer].weight, jacobian.T, atol=1e-4, rtol=1e-3)
        state = torch.randn(1, 32)
        torch.testing.assert_close(lens.maps[layer](state)[0], jacobian @ state[0], atol=1e-3, rtol=1e-3)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_tuned_lens_is_trained_by_its_formula(model, texts):
    """One step of Adam from W = 0, b = 0 with gradients written out: h + W h + b through norm and head."""
    found = fit_tuned_lens(model, texts, [2], replace(SMALL, steps=1, batch_size=8)).maps[2]
    states, final = zip(*((blocks(model, row)[2][SKIPPED:], blocks(model, row)[-1][SKIPPED:]) for row in texts))
    states, final = torch.cat(states).detach(), torch.cat(final).detach()
    rows = torch.randint(len(states), (8,), generator=torch.Generator().manual_seed(0))
    matrix, bias = torch.zeros(32, 32, requires_grad=True), torch.zeros(32, requires_grad=True)
    loss = 0.0
    for h, h_final in zip(states[rows], final[rows]):
        own = model.lm_head(model.model.norm(h_final)).softmax(-1).detach()
        lens = model.lm_head(model.model.norm(h + matrix @ h + bias)).softmax(-1)
        loss = loss + (own * (own.log() - lens.log())).sum() / 8
    for_matrix, for_bias = torch.autograd.grad(loss, [matrix, bias])

    def step(gradient):  # the first of Adam: ± the rate, wherever the gradient is not tiny
        return -SMALL.learning_rate * gradient / (gradient.abs() + 1e-8)

    torch.testing.assert_close(found.weight, torch.eye(32) + step(for_matrix).T, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(found.bias, step(for_bias), atol=2e-4, rtol=1e-3)


def test_fitting_lessens_the_divergence_on_texts_it_has_not_seen(model, texts):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    lens = fit_tuned_lens(model, texts[:12], [1, 3], SMALL, lambda step, loss: seen.append((step, loss)))
    held_out = lens_losses(model, texts[12:], lens.maps)
    assert [step for step, _ in seen] == list(range(60)) and seen[-1][1] < seen[0][1]
    assert all(fitted < 0.97 * plain for plain, fitted in held_out.values()), held_out
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    again = fit_tuned_lens(model, texts[:12], [3, 1], SMALL)
    assert all(torch.equal(again.maps[layer].weight, lens.maps[layer].weight) for layer in (1, 3))


def test_losses_are_divergences_position_by_position(model, texts):
    """Of the last layer's output itself there is none."""
    one = AffineMap(torch.randn(32, 32), torch.randn(32))
    expected = {"plain": [], "mapped": []}
    with torch.no_grad():
        for row in texts[:6]:
            seen = blocks(model, row)
            for h, h_final in zip(seen[2][SKIPPED:], seen[-1][SKIPPED:]):
                own = model.lm_head(model.model.norm(h_final)).log_softmax(-1)
                for name, mapped in (("plain", h), ("mapped", h @ one.weight + one.bias)):
                    lens = model.lm_head(model.model.norm(mapped)).log_softmax(-1)
                    expected[name].append(float((own.exp() * (own - lens)).sum()))
    plain, mapped = lens_losses(model, texts[:6], {2: one})[2]
    assert plain == pytest.approx(sum(expected["plain"]) / len(expected["plain"]), rel=1e-3)
    assert mapped == pytest.approx(sum(expected["mapped"]) / len(expected["mapped"]), rel=1e-3)


def test_a_lens_comes_back_from_its_file_and_serves_as_a_mapping(model, texts, tmp_path):
    lens = fit_tuned_lens(model, texts, [0, 2], replace(SMALL, steps=2))
    lens.save(tmp_path / "lens.safetensors")
    found = Lens.load(tmp_path / "lens.safetensors")
    assert (found.kind, found.probe, list(found.maps)) == (lens.kind, lens.probe, [0, 2])
    assert all(torch.equal(found.maps[layer].weight, lens.maps[layer].weight) for layer in (0, 2))
    found.check(model)
    maps = MapsFile.read(tmp_path / "lens.safetensors")
    check_spaces(maps, n_layers=4, source_hidden=32, hidden=32)
    assert torch.equal(maps.maps[2](torch.ones(1, 32)), lens.maps[2](torch.ones(1, 32)))


def test_a_lens_of_another_model_is_refused(model):
    identity = AffineMap(torch.eye(32), torch.zeros(32))
    mine = Lens("tuned", {3: identity}, probe_of(model))
    mine.check(model.to(torch.bfloat16))
    model.float()
    with pytest.raises(MappingError, match="layers 0 to 3"):
        replace(mine, maps={4: identity}).check(model)
    with pytest.raises(MappingError, match="hidden size"):
        replace(mine, maps={3: AffineMap(torch.eye(8), torch.zeros(8))}).check(model)
    other = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        other.lm_head.weight.copy_(other.lm_head.weight.flip(0))
    with pytest.raises(MappingError, match="another model's"):
        mine.check(other)


def test_other_files_are_no_lens(tmp_path):
    path = tmp_path / "maps.safetensors"
    save_maps({3: AffineMap(torch.eye(4), torch.zeros(4))}, path)
    with pytest.raises(MappingError, match=r"maps\.safetensors is no lens"):
        Lens.load(path)
    path.write_text("nonsense")
    with pytest.raises(MappingError, match="no lens"):
        Lens.load(path)
    save_file({"3.weight": torch.eye(4), "3.bias": torch.zeros(4)}, path, {"lens": "glass", "probe": json.dumps([1.0])})
    with pytest.raises(MappingError, match="'glass'"):
        Lens.load(path)


def test_what_cannot_be_fitted_is_refused(model, texts):
    with pytest.raises(ValueError, match="at least one step"):
        TunedLensSettings(steps=0)
    with pytest.raises(MappingError, match="needs 18"):
        fit_jacobian_lens(model, texts[:, :17], [1])
