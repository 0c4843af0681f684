"""Behaviour of the tested versions that would silently lose, spread or distort surgery."""

from __future__ import annotations

import threading

import pytest
import torch
from reference import reference_generate, reference_pass
from tiny_models import tiny_model

HIDDEN, PROMPT = 32, [5, 17, 99, 23, 64, 31]
IDS = torch.tensor([PROMPT])


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


INFO = {
    1: ([1, 4], vectors(2, 0)),
    3: ([-1], vectors(1, 1)),
    "replacing_mode": "normalized",
    "overlay_strength": 0.9,
}
BATCH = torch.tensor([PROMPT, [40, 41, 42, 43, 44, 45], [9, 8, 7, 6, 5, 4]])
INFOS = [INFO, {}, {2: ([0], vectors(1, 2)), "replacing_mode": "addition", "overlay_strength": 2.0}]


@pytest.fixture
def model():
    return tiny_model(eos_token_id=None)


def reference_logits(model, prompt=PROMPT, info=INFO) -> torch.Tensor:
    with torch.no_grad():
        return reference_pass(model, prompt, info)[1]


# ---- compiled models ignore new hooks once they have run


@pytest.mark.parametrize("compiled", ["module", "forward", "layers"])
def test_a_model_that_was_compiled_and_has_run(model, compiled):
    expected = reference_logits(model)
    if compiled == "module":
        model.compile(backend="eager")
    elif compiled == "forward":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        for layer in model.model.layers:
            layer.compile(backend="eager")
    with torch.no_grad():
        plain = model(IDS).logits[0]
        operated = model.forward_interpret(IDS, insert_info=[INFO]).logits[0]
        again = model(IDS).logits[0]
    torch.testing.assert_close(operated, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-5)
    assert (plain - operated).abs().max() > 1e-2


# ---- gradient checkpointing runs the layers again when the hooks are gone


def enable_checkpointing(model) -> None:
    """By its name from 5.24 on, or the one before."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def test_gradients_under_checkpointing(model):
    def gradients(run) -> list[torch.Tensor]:
        model.zero_grad()
        embedding = vectors(1, 5).requires_grad_()
        run({1: ([2], embedding), "replacing_mode": "normalized", "overlay_strength": 0.7}).square().mean().backward()
        return [embedding.grad, model.model.layers[0].mlp.up_proj.weight.grad.clone()]

    expected = gradients(lambda info: reference_pass(model, PROMPT, info)[1])
    enable_checkpointing(model)
    model.train()
    found = gradients(lambda info: model.forward_interpret(IDS, insert_info=[info], use_cache=False).logits[0])
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_checkpointing_is_on_again_after_an_error(model):
    enable_checkpointing(model)
    on = [name for name, module in model.named_modules() if getattr(module, "gradient_checkpointing", False)]
    with pytest.raises(IndexError):
        model.forward_interpret(torch.full((1, 6), 9999), insert_info=[INFO])
    assert on == [name for name, module in model.named_modules() if getattr(module, "gradient_checkpointing", False)]
    assert on


# ---- guidance compares with a pass without the condition, and so without the surgery


def guided_by_hand(model, scale: float, n: int) -> list[int]:
    """Classifier-free guidance, whose unconditional side begins with the prompt's last token."""
    conditional, unconditional = list(PROMPT), PROMPT[-1:]
    with torch.no_grad():
        for _ in range(n):
            logits = [
                reference_pass(model, conditional, INFO, len(PROMPT))[1][-1],
                reference_pass(model, unconditional, {})[1][-1],
            ]
            with_, without = (scores.log_softmax(-1) for scores in logits)
            token = int((scale * (with_ - without) + without).argmax())
            conditional.append(token)
            unconditional.append(token)
    return conditional[len(PROMPT) :]


def test_guidance(model):
    found = model.generate_interpret(IDS, insert_info=[INFO], guidance_scale=2.5, max_new_tokens=6, do_sample=False)
    expected = guided_by_hand(model, 2.5, 6)
    assert found[0, len(PROMPT) :].tolist() == expected
    unguided = model.generate_interpret(IDS, insert_info=[INFO], max_new_tokens=6, do_sample=False)
    assert expected != unguided[0, len(PROMPT) :].tolist()


# ---- other threads


def test_other_threads_generate_as_ever(model):
    plain = model.generate(IDS, max_new_tokens=4, do_sample=False)
    found, inside, done = {}, threading.Event(), threading.Event()

    def other():
        inside.wait(30)
        found["other"] = model.generate(IDS, max_new_tokens=4, do_sample=False)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def meet(batch, tokens):
        inside.set()
        done.wait(30)
        return list(range(128))

    ours = model.generate_interpret(
        IDS, insert_info=[INFO], max_new_tokens=4, do_sample=False, prefix_allowed_tokens_fn=meet
    )
    thread.join()
    assert torch.equal(found["other"], plain)
    assert torch.equal(ours, reference_generate(model, [INFO], 6, inputs=IDS, max_new_tokens=4, do_sample=False))
    assert not torch.equal(ours, plain)


# ---- beams in sub-batches


def test_low_memory_beams_over_several_rows_are_refused(model):
    with pytest.raises(
        ValueError, match=r"beam_search with low_memory=True is not supported .* batch of 3 on transformers"
    ):
        model.generate_interpret(BATCH, insert_info=INFOS, num_beams=3, low_memory=True, max_new_tokens=3)


# ---- what would shift or lose rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_healing": True}, "token_healing is not supported with insert_info: it tokenizes the prompt again"),
        ({"cache_implementation": "paged"}, r"continuous batching \(cache_implementation='paged'\) is not supported"),
        ({"custom_generate": "someone/something"}, "custom_generate from a repository is not supported"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_changes_the_prompt_or_its_rows_is_refused(model, monkeypatch, arguments, message):
    from transformers.interpretation.surgery import generation_support as decoding

    config = model.generation_config
    for name, value in arguments.items():
        monkeypatch.setattr(config, name, value, raising=False)
    with pytest.raises(ValueError, match=message):
        decoding.refuse_unsupported(model, arguments, config, 1)


# ---- caller's tensors and recorded hidden states


def test_the_callers_embeddings_stay_and_the_record_shows_the_surgery(model):
    embeds = model.get_input_embeddings()(IDS).detach()
    before = embeds.clone()
    info = {0: ([2], vectors(1, 7)), 2: ([3], vectors(1, 8)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    with torch.no_grad():
        output = model.forward_interpret(inputs_embeds=embeds, insert_info=[info], output_hidden_states=True)
    assert torch.equal(embeds, before)
    assert torch.equal(output.hidden_states[0][0, 2], vectors(1, 7)[0, 0])
    assert torch.equal(output.hidden_states[2][0, 3], vectors(1, 8)[0, 0])


# ---- offload and device maps replace `forward`


def test_offloaded_to_disk(model, tmp_path):
    from accelerate import disk_offload

    expected = reference_logits(model)
    offloaded = disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    with torch.no_grad():
        output = offloaded.forward_interpret(IDS, insert_info=[INFO], output_hidden_states=True)
    torch.testing.assert_close(output.logits[0], expected, atol=1e-5, rtol=1e-5)
    assert (output.hidden_states[1][0, [1, 4]] - vectors(2, 0)[0]).abs().max() < 0.5 * vectors(2, 0).abs().max()
