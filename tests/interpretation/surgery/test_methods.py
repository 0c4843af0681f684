"""The three bound methods: signatures, the plain call, prompts of every form, greedy search, an old script."""

from __future__ import annotations

import inspect

import pytest
import torch
from reference import reference_generate, reference_greedy, reference_pass
from tiny_models import tiny_model
from torch import nn
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.generation import GenerationMixin, LogitsProcessor, MaxLengthCriteria, StoppingCriteria
from transformers.interpretation.models.kv_cache import cache_beside, cache_in

HIDDEN = 32
PROMPTS = ([5, 17, 99, 23, 64, 31], [71, 8, 45])
WIDTH = 6


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


INFOS = [
    {1: ([-4, -2], vectors(2, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0},
    {0: ([-3], vectors(1, 2)), 3: ([-1], vectors(1, 3)), "replacing_mode": "addition", "overlay_strength": 1.5},
]
IDS = torch.tensor([[0] * (WIDTH - len(prompt)) + prompt for prompt in PROMPTS])
MASK = torch.tensor([[0] * (WIDTH - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
MASKED = {**INFOS[1], 0: ([1], vectors(1, 2))}


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None)


@pytest.fixture(scope="module")
def expected(model):
    """[2][8]: the continuations of the two prompts under surgery."""
    return [reference_greedy(model, prompt, info, 8) for prompt, info in zip(PROMPTS, INFOS)]


def continuations(generated: torch.Tensor, width: int = WIDTH) -> list[list[int]]:
    return generated[:, width:].tolist()


# ---- signatures and the plain call


def parameters(function) -> dict:
    return {
        name: (parameter.kind, parameter.default) for name, parameter in inspect.signature(function).parameters.items()
    }


@pytest.mark.parametrize(
    ("method", "plain"),
    [
        (LlamaForCausalLM.forward_interpret, LlamaForCausalLM.forward),
        (GenerationMixin.generate_interpret, GenerationMixin.generate),
        (LlamaForCausalLM.generate_interpret, LlamaForCausalLM.generate),
    ],
)
def test_signatures_are_the_plain_ones_and_insert_info(method, plain):
    assert parameters(method) == {**parameters(plain), "insert_info": (inspect.Parameter.KEYWORD_ONLY, None)}


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


# ---- forward


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


# ---- generate: prompts of every form


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


# ---- greedy search


class Forbid(LogitsProcessor):
    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] = -float("inf")
        return scores


class StopAt(StoppingCriteria):
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        done = input_ids.shape[1] >= self.length
        return torch.full((input_ids.shape[0],), done) if hasattr(GenerationMixin, "_sample") else done


def criteria(*given):
    from transformers.generation import StoppingCriteriaList

    return StoppingCriteriaList(given)


def processors(*given):
    from transformers.generation import LogitsProcessorList

    return LogitsProcessorList(given)


@pytest.mark.parametrize(
    ("limit", "n"),
    [
        ({"max_length": WIDTH + 8}, 8),
        ({"stopping_criteria": criteria(MaxLengthCriteria(max_length=WIDTH + 8))}, 8),
        ({"stopping_criteria": criteria(StopAt(WIDTH + 3), MaxLengthCriteria(max_length=WIDTH + 8))}, 3),
        ({"stopping_criteria": criteria(StopAt(WIDTH + 8))}, 8),
    ],
    ids=["max_length", "MaxLengthCriteria", "both", "own"],
)
def test_greedy_search_equals_the_reference(model, expected, limit, n):
    found = model.greedy_search_interpret(IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=0, **limit)
    assert continuations(found) == [tokens[:n] for tokens in expected]


def test_greedy_search_reads_no_settings_of_the_model(model, expected):
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=True, repetition_penalty=5.0, num_beams=3, pad_token_id=0, top_k=3
    )
    try:
        swapped = model.generation_config
        found = model.greedy_search_interpret(IDS, attention_mask=MASK, insert_info=INFOS, max_length=WIDTH + 8)
        assert model.generation_config is swapped
    finally:
        model.generation_config = own
    assert continuations(found) == expected


def test_greedy_search_leaves_the_settings_that_other_threads_read(model):
    own, seen = model.generation_config, []
    settings = own.to_dict()

    class Watch(StopAt):
        def __call__(self, *args, **kwargs):
            seen.append(model.generation_config is own and own.to_dict() == settings)
            return super().__call__(*args, **kwargs)

    model.greedy_search_interpret(
        IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=0, stopping_criteria=criteria(Watch(WIDTH + 3))
    )
    assert seen == [True, True, True]


def test_greedy_search_infers_no_mask(model):
    info = {1: ([0], vectors(1, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    found = model.greedy_search_interpret(torch.tensor([[0, 5, 9]]), insert_info=[info], pad_token_id=0, max_length=7)
    assert continuations(found, 3)[0] == reference_greedy(model, [0, 5, 9], info, 4)


def test_greedy_search_ends_at_any_end_token_and_pads(model, expected):
    ends = [expected[0][2], 127]
    n = expected[0].index(ends[0]) + 1
    assert ends[0] not in expected[1]
    found = model.greedy_search_interpret(
        IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=126, eos_token_id=ends, max_length=WIDTH + 8
    )
    assert continuations(found) == [expected[0][:n] + [126] * (8 - n), expected[1]]


def test_greedy_search_applies_processors_and_returns_what_is_asked(model, expected):
    forbidden = expected[0][0]
    found = model.greedy_search_interpret(
        IDS,
        attention_mask=MASK,
        insert_info=INFOS,
        logits_processor=processors(Forbid(forbidden)),
        max_length=WIDTH + 4,
        pad_token_id=0,
        output_scores=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert found.sequences.shape == (2, WIDTH + 4)
    assert len(found.scores) == 4
    assert all(bool(torch.isneginf(scores[:, forbidden]).all()) for scores in found.scores)
    assert torch.equal(torch.stack([scores.argmax(-1) for scores in found.scores], 1), found.sequences[:, WIDTH:])
    assert torch.equal(found.hidden_states[0][1][0, [2, 4]], vectors(2, 0)[0])


# ---- the predecessor's script


def test_a_script_written_for_the_predecessor_runs_unchanged():
    model = tiny_model(attn_implementation="eager")
    inputs = {"input_ids": IDS[:1], "attention_mask": MASK[:1]}
    outputs = model.forward_interpret(**inputs, return_dict=True, output_attentions=True, output_hidden_states=True)
    assert len(outputs.hidden_states) == 5
    assert len(outputs.attentions) == 4
    insert_info = [
        {
            2: ([1, 2], outputs.hidden_states[3][0, [4]].repeat(2, 1).unsqueeze(0)),
            "retrieve_layer": 3,
            "retrieve_token": 4,
            "overlay_strength": 1.0,
            "replacing_mode": "normalized",
        }
    ]
    output = model.generate_interpret(
        **inputs, max_new_tokens=30, insert_info=insert_info, pad_token_id=0, output_attentions=False
    )
    with torch.no_grad():
        repeated = {"output_hidden_states": True, "return_dict": True}
        operated = model.forward_interpret(output[..., :-1], **repeated, insert_info=insert_info)
        plain = model.forward_interpret(output[..., :-1], **repeated)
    logits = [model.lm_head(outputs.hidden_states[-1])[0, WIDTH - 1 :] for outputs in (operated, plain)]
    tokens = output[0, WIDTH:]
    assert torch.equal(logits[0].argmax(-1), tokens)
    relevancy = [scores.softmax(-1).gather(-1, tokens[:, None]) for scores in logits]
    assert (relevancy[0] - relevancy[1]).abs().max() > 1e-3
    reference = reference_generate(model, insert_info, WIDTH, **inputs, max_new_tokens=30, pad_token_id=0)
    assert torch.equal(output, reference)
