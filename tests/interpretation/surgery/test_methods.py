"""The three bound methods: signatures, the plain call, prompts of every form."""

from __future__ import annotations

import inspect

import pytest
import torch
from reference import reference_greedy, reference_pass
from tiny_models import tiny_model
from torch import nn
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.generation import GenerationMixin
from transformers.interpretation.models.kv_cache import cache_beside, cache_in
from two_prompts import HIDDEN, IDS, INFOS, MASK, MASKED, PROMPTS, WIDTH, continuations, vectors


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None)


@pytest.fixture(scope="module")
def expected(model):
    """[2][8]: the continuations of the two prompts under surgery."""
    return [reference_greedy(model, prompt, info, 8) for prompt, info in zip(PROMPTS, INFOS)]


def parameters(function) -> dict:
    return {
        name: (parameter.kind, parameter.default) for name, parameter in inspect.signature(function).parameters.items()
    }


@pytest.mark.parametrize(
    ("method", "plain", "more"),
    [
        (LlamaForCausalLM.forward_interpret, LlamaForCausalLM.forward, {"output_pre_mlp_states": False}),
        (GenerationMixin.generate_interpret, GenerationMixin.generate, {}),
        (LlamaForCausalLM.generate_interpret, LlamaForCausalLM.generate, {}),
    ],
)
def test_signatures_are_the_plain_ones_and_insert_info(method, plain, more):
    added = {
        name: (inspect.Parameter.KEYWORD_ONLY, default) for name, default in ({"insert_info": None} | more).items()
    }
    assert parameters(method) == parameters(plain) | added


def test_greedy_search_has_the_signature_of_4_34():
    names = list(inspect.signature(GenerationMixin.greedy_search_interpret).parameters)
    assert names == [
        "self",
        *("input_ids", "logits_processor", "stopping_criteria", "max_length", "pad_token_id", "eos_token_id"),
        *("output_attentions", "output_hidden_states", "output_scores", "return_dict_in_generate", "synced_gpus"),
        *("streamer", "insert_info", "model_kwargs"),
    ]
    if hasattr(GenerationMixin, "greedy_search"):
        plain = parameters(GenerationMixin.greedy_search)
        assert {name: parameters(GenerationMixin.greedy_search_interpret)[name] for name in plain} == plain


@pytest.mark.parametrize("nothing", [None, [{}, {}]], ids=["None", "empty dicts"])
def test_nothing_to_insert_is_the_plain_call_without_a_hook(model, monkeypatch, nothing):
    with torch.no_grad():
        plain = model(IDS, attention_mask=MASK)
        generated = model.generate(
            IDS, attention_mask=MASK, max_new_tokens=5, output_scores=True, return_dict_in_generate=True
        )

    def forbidden(self, *args, **kwargs):
        raise AssertionError("a hook was set")

    monkeypatch.setattr(nn.Module, "register_forward_pre_hook", forbidden)
    with torch.no_grad():
        found = model.forward_interpret(IDS, attention_mask=MASK, insert_info=nothing)
    assert torch.equal(found.logits, plain.logits)
    found = model.generate_interpret(
        IDS,
        attention_mask=MASK,
        max_new_tokens=5,
        output_scores=True,
        return_dict_in_generate=True,
        insert_info=nothing,
    )
    assert torch.equal(found.sequences, generated.sequences)
    assert all(torch.equal(a, b) for a, b in zip(found.scores, generated.scores))
    found = model.greedy_search_interpret(IDS, attention_mask=MASK, max_length=WIDTH + 5, insert_info=nothing)
    assert torch.equal(found, generated.sequences)


def test_forward_takes_positional_arguments_and_padding(model):
    with torch.no_grad():
        logits = model.forward_interpret(
            IDS, MASK, insert_info=INFOS, position_ids=(MASK.cumsum(1) - 1).clamp(min=0)
        ).logits
    for row, (prompt, info) in enumerate(zip(PROMPTS, INFOS)):
        torch.testing.assert_close(
            logits[row, -len(prompt) :], reference_pass(model, prompt, info)[1], atol=1e-4, rtol=1e-4
        )


def test_forward_takes_embeddings(model):
    info = INFOS[:1]
    embeds = model.get_input_embeddings()(torch.tensor([PROMPTS[0]]))
    with torch.no_grad():
        logits = model.forward_interpret(inputs_embeds=embeds, insert_info=info).logits
    torch.testing.assert_close(logits[0], reference_pass(model, PROMPTS[0], info[0])[1], atol=1e-5, rtol=1e-5)


def test_forward_goes_on_from_a_cache(model):
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        past = cache_beside(model, cache_in(model(ids[:, :2], use_cache=True)), ids[:, 2:])
        logits = model.forward_interpret(ids[:, 2:], **past, insert_info=INFOS[:1]).logits
    torch.testing.assert_close(logits[0], reference_pass(model, PROMPTS[0], INFOS[0])[1][2:], atol=1e-4, rtol=1e-4)


def test_a_cached_position_is_refused_before_any_work(model, monkeypatch):
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        past = cache_beside(model, cache_in(model(ids[:, :3], use_cache=True)), ids[:, 3:])
    monkeypatch.setattr(LlamaForCausalLM, "forward", forbidden_forward)
    with pytest.raises(ValueError, match=r"row 0: layer 1, position -4: already in the key/value cache, which holds 3"):
        model.forward_interpret(ids[:, 3:], **past, insert_info=INFOS[:1])


def forbidden_forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, past_key_values=None, **kwargs):
    raise AssertionError("the model ran")


def test_forward_without_a_prompt(model):
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        model.forward_interpret(insert_info=INFOS)


@pytest.mark.parametrize(
    "form", ["inputs", "input_ids", "generation config", "embeddings", "no cache", "inferred mask"]
)
def test_generate_takes_prompts_of_every_form(model, expected, form):
    batch = {"inputs": IDS, "attention_mask": MASK, "max_new_tokens": 8, "insert_info": INFOS, "do_sample": False}
    width = WIDTH
    if form == "input_ids":
        batch["input_ids"] = batch.pop("inputs")
    elif form == "generation config":
        batch["generation_config"] = GenerationConfig(max_new_tokens=batch.pop("max_new_tokens"), pad_token_id=0)
    elif form == "embeddings":
        batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("inputs"))
        width = -8  # some versions return the new tokens alone, some a first token before them
    elif form == "no cache":
        batch["use_cache"] = False
    elif form == "inferred mask":
        del batch["attention_mask"]
    assert continuations(model.generate_interpret(**batch), width) == expected


def test_generate_goes_on_from_a_cache(model, expected):
    ids = torch.tensor([PROMPTS[0]])
    info = [{1: ([-1], vectors(1, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0}]
    with torch.no_grad():
        past = cache_beside(model, cache_in(model(ids[:, :-1], use_cache=True)), ids[:, -1:])
    generated = model.generate_interpret(ids, **past, insert_info=info, max_new_tokens=8, do_sample=False)
    assert continuations(generated)[0] == reference_greedy(model, PROMPTS[0], info[0], 8)


def test_generate_from_nothing_but_the_first_token(model):
    info = {1: ([0], vectors(1, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    generated = model.generate_interpret(insert_info=[info], max_new_tokens=4, do_sample=False)
    assert generated[0].tolist() == [1, *reference_greedy(model, [1], info, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": IDS, "attention_mask": MASK}, r"row 1: layer 0, position 1: masked by the attention mask"),
        ({"inputs": IDS}, r"row 1: layer 0, position 1: masked by the attention mask"),
        ({"inputs": IDS, "pad_token_id": 0}, r"row 1: layer 0, position 1: masked by the attention mask"),
        ({"input_ids": IDS[:, :1]}, r"row 0: layer 1, position -4: outside the prompt of 1 tokens"),
        ({"inputs_embeds": torch.zeros(2, 1, HIDDEN)}, r"row 0: layer 1, position -4: outside the prompt of 1 tokens"),
        ({}, r"insert_info has 2 entries for a batch of 1"),
    ],
)
def test_generate_checks_before_any_work(model, monkeypatch, arguments, message):
    monkeypatch.setattr(LlamaForCausalLM, "forward", forbidden_forward)
    with pytest.raises(ValueError, match=message):
        model.generate_interpret(**arguments, insert_info=[INFOS[0], MASKED], max_new_tokens=2)


def test_a_pad_token_that_ends_sequences_masks_nothing(model):
    info = {1: ([0], vectors(1, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    generated = model.generate_interpret(
        torch.tensor([[0, 5, 9]]), insert_info=[info], eos_token_id=0, pad_token_id=0, max_new_tokens=4, do_sample=False
    )
    found = generated[0, 3:].tolist()
    assert found == reference_greedy(model, [0, 5, 9], info, 4)[: len(found)]
