"""The function forms as selfie's notebooks call them, against the library's modules and a model that is rewritten."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import reference_greedy, rewritten
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.selfie import (
    InterpretationPrompt,
    decoder_layer_forward_interpret,
    generate_interpret,
    interpret_vectors,
    model_forward_interpret,
    model_model_forward_interpret,
)

TOKENIZER = tiny_tokenizer()
TEXT = "a type of drink"


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture
def inputs():
    return TOKENIZER(TEXT, return_tensors="pt")


def insertions(vector, layer, locations=(3, 5)):
    embedding = vector.repeat(1, len(locations), 1)
    return {layer: (list(locations), embedding), "replacing_mode": "normalized", "overlay_strength": 1}


def same(one, other):
    return torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_states_around_each_mlp_as_the_notebooks_tabulate_them(model, inputs):
    outputs = model_forward_interpret(
        model, inputs.input_ids, output_hidden_states=True, output_pre_mlp_states=True, return_dict=True
    )
    pre_mlp_states, post_mlp_states = outputs[1], outputs[0]["hidden_states"]
    plain = model(inputs.input_ids, output_hidden_states=True)
    assert torch.equal(outputs[0].logits, plain.logits)
    assert len(pre_mlp_states) == len(post_mlp_states) == 5
    for layer in range(1, 4):  # what comes after the last layer has gone through the final norm
        pre_mlp, residual = (state[0] for state in pre_mlp_states[layer])
        assert same(model.model.layers[layer - 1].mlp(pre_mlp) + residual, plain.hidden_states[layer][0])


@torch.no_grad()
def test_a_pass_under_surgery(model, inputs):
    vector = torch.linspace(-1, 1, 32)
    info = [insertions(vector, 1)]
    found = model_forward_interpret(model=model, **inputs, insert_info=info, output_hidden_states=True)
    with rewritten(model, info, inputs.input_ids.shape[1]) as layers:
        expected = model(**inputs, use_cache=False)
        inputs_of_layers = [layer.seen for layer in layers]
    assert same(found.logits, expected.logits)
    for state, given in zip(found.hidden_states, inputs_of_layers):
        assert same(state, given)


@torch.no_grad()
def test_the_decoder_returns_a_pair_always(model, inputs):
    vector = torch.linspace(-1, 1, 32)
    output, pairs = model_model_forward_interpret(
        model, **inputs, insert_info=[insertions(vector, 2)], output_hidden_states=True
    )
    whole, same_pairs = model_forward_interpret(
        model, **inputs, insert_info=[insertions(vector, 2)], output_pre_mlp_states=True
    )
    assert same(model.lm_head(output.last_hidden_state), whole.logits)
    assert all(torch.equal(a, b) for one, other in zip(pairs, same_pairs) for a, b in zip(one, other))
    bare = model_model_forward_interpret(model, inputs.input_ids, return_dict=False, use_cache=False)
    assert same(bare[0], model.model(inputs.input_ids).last_hidden_state)


@torch.no_grad()
def test_one_layer(model, inputs):
    states = model(inputs.input_ids, output_hidden_states=True).hidden_states
    positions = torch.arange(states[0].shape[1])[None]
    layer = model.model.layers[1]
    given = {"position_ids": positions, "attention_mask": causal(positions.shape[1])}
    if rotary := getattr(model.model, "rotary_emb", None):
        with pytest.raises(
            ValueError, match=r"takes position_embeddings.*give position_embeddings=model\.model\.rotary"
        ):
            decoder_layer_forward_interpret(states[1], decoder_layer=layer, **given)
        given["position_embeddings"] = rotary(states[1], positions)
    outputs, (pre_mlp, residual) = decoder_layer_forward_interpret(states[1], decoder_layer=layer, **given)
    assert same(outputs[0], states[2])
    assert same(layer.mlp(pre_mlp) + residual, states[2])


def causal(length):
    return torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]


@torch.no_grad()
def test_generation_in_a_batch(model):
    prompt = InterpretationPrompt(TOKENIZER, ("[I]", 0, 0, "[/I] Sure:"))
    vectors = [torch.linspace(-1, 1, 32), torch.linspace(2, -1, 32)]
    infos = [insertions(vector, 1, prompt.insert_locations) for vector in vectors]
    batch = TOKENIZER([prompt.interpretation_prompt] * 2, return_tensors="pt")
    output = generate_interpret(
        **batch,
        model=model,
        max_new_tokens=6,
        insert_info=infos,
        pad_token_id=TOKENIZER.eos_token_id,
        output_attentions=False,
    )
    ids = TOKENIZER.encode(prompt.interpretation_prompt)
    for row, info in zip(output[:, len(ids) :].tolist(), infos):
        expected = reference_greedy(model, ids, info, 6)
        assert row[: row.index(2) if 2 in row else None] == expected[: expected.index(2) if 2 in expected else None]


def test_supervised_control_of_one_mlp(model, inputs):
    """Only the edited module's gradient is needed: its output is moved to another embedding, which is then said."""
    edited = copy.deepcopy(model)
    _, pairs = model_forward_interpret(edited, inputs.input_ids, output_pre_mlp_states=True)
    pre_mlp, residual = (state[0, -1].detach() for state in pairs[2])
    target = torch.linspace(-1, 1, 32)
    mlp = edited.model.layers[1].mlp
    optimizer = torch.optim.Adam(mlp.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = (mlp(pre_mlp) + residual - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]
    state = edited(inputs.input_ids, output_hidden_states=True).hidden_states[2][0, -1].detach()
    assert same(state, (mlp(pre_mlp) + residual).detach())


def test_reinforcement_control_rewards_what_is_said_at_layer_1(model, inputs):
    """The notebook's loss: rewards of interpretations of the MLP's outputs, times a cosine with itself."""
    _, pairs = model_forward_interpret(model, inputs.input_ids, output_pre_mlp_states=True)
    pre_mlp, residual = (state[0].detach() for state in pairs[2])
    out = model.model.layers[1].mlp(pre_mlp) + residual
    prompt = InterpretationPrompt(TOKENIZER, ("[I]", 0, 0, "[/I] Sure:"))
    texts = interpret_vectors(out, model, prompt, TOKENIZER, bs=3, k=2, max_new_tokens=5)
    ids = TOKENIZER.encode(prompt.interpretation_prompt)
    with torch.no_grad():
        said = [reference_greedy(model, ids, insertions(row, 1, prompt.insert_locations), 5) for row in out]
    assert texts == [
        TOKENIZER.decode(row[: row.index(2) if 2 in row else None], skip_special_tokens=True) for row in said
    ]
    rewards = torch.tensor([1.0 if "e" in text else -1.0 for text in texts])
    cosine = (out * out.detach()).sum(-1) / out.detach().norm(dim=-1) ** 2
    loss = -(rewards * cosine).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-float(rewards.mean()), abs=1e-5)
    assert model.model.layers[1].mlp.down_proj.weight.grad.abs().sum() > 0
    model.zero_grad()
