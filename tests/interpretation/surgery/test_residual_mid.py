"""The residual stream between attention and MLP, read and written, against hooks on what the attention adds to it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from places_by_hand import rewritten, vectors
from tiny_models import available_families, tiny_model
from transformers.interpretation import capture
from transformers.interpretation.models.families import UnsupportedModelError

IDS = torch.tensor([[5, 9, 17, 33, 65, 9, 12], [7, 3, 101, 44, 18, 90, 11]])
SIDE_BY_SIDE = {"phi", "cohere", "cohere2", "gptj", "codegen", "falcon", "gpt_neox", "olmo2", "olmo3", "opt"}
"""Attention and MLP run in parallel, or the MLP has no norm before it, or is given rows and columns as one (OPT)."""
ADDED = {  # what is added to the residual stream, where it is not what self_attn returns
    **dict.fromkeys(("gemma2", "gemma3_text"), "post_attention_layernorm"),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), "attn"),
    "glm4": "post_self_attn_layernorm",
    "bloom": "self_attention.dense",
}
AVAILABLE = [family.model_type for family in available_families()]


@contextmanager
def by_hand(model, info, layer, prompt_length=7):
    """What the attention of a layer adds becomes the new state less what it is added to. Gives what was there."""
    block = next(m for n, m in model.named_modules() if n.split(".")[-1] in ("layers", "h") and len(m) == 4)[layer]
    times, before, seen = getattr(model.config, "residual_multiplier", 1.0), [], []

    def note(_, args, kwargs):
        before[:] = [args[0] if args else kwargs["hidden_states"]]

    def after(_, args, output):
        added = output[0] if isinstance(output, tuple) else output
        seen.append(before[0] + times * added)
        made = rewritten(seen[-1], info, ("residual_mid", layer), 0, prompt_length, added.shape[1])
        made = (made - before[0]) / times
        return (made, *output[1:]) if isinstance(output, tuple) else made

    first = block.register_forward_pre_hook(note, with_kwargs=True)
    second = block.get_submodule(ADDED.get(model.config.model_type, "self_attn")).register_forward_hook(after)
    try:
        yield seen
    finally:
        first.remove()
        second.remove()


def info_at(layer, mode="normalized", strength=1.0):
    site, options = ("residual_mid", layer), {"replacing_mode": mode, "overlay_strength": strength}
    return [{site: ([2, -1], vectors(2)), **options}, {site: ([3], vectors(1, 5)), **options}]


@pytest.mark.parametrize("family", AVAILABLE)
@torch.no_grad()
def test_every_family_has_it_or_is_refused(family):
    model = tiny_model(family)
    info = info_at(2)
    if family in SIDE_BY_SIDE:
        for call in (
            lambda: model.forward_interpret(input_ids=IDS, insert_info=info),
            lambda: capture(model, IDS[:1], [2], [0], "residual_mid"),
        ):
            with pytest.raises(UnsupportedModelError, match="has no state between attention and MLP"):
                call()
        return
    with by_hand(model, info, 2) as seen:
        expected = model(IDS, use_cache=False, output_hidden_states=True)
    found = model.forward_interpret(input_ids=IDS, output_hidden_states=True, insert_info=info)
    torch.testing.assert_close(found.logits, expected.logits, atol=5e-5, rtol=1e-3)
    for mine, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-3)
    assert (found.logits - model(IDS).logits).abs().max() > 1e-3
    states = capture(model, IDS[:1], [2], range(7), "residual_mid")[0]
    torch.testing.assert_close(states, seen[0][0], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("mode", "strength"), [("addition", 2.0), ("norm_matched", 0.7), ("norm_matched_addition", 1.5)]
)
@torch.no_grad()
def test_every_mode_while_tokens_are_generated(mode, strength):
    model, info = tiny_model(), info_at(1, mode, strength)
    info[0]["residual_mid", 1] = ([2, "generated"], vectors(2))
    with by_hand(model, info, 1):
        expected = model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=False)
    found = model.generate_interpret(IDS, max_new_tokens=6, do_sample=False, insert_info=info)
    assert torch.equal(found, expected)
    assert not torch.equal(model.generate(IDS, max_new_tokens=6, do_sample=False), expected)


def test_gradients_flow_through_the_embedding_and_what_was_there():
    model = tiny_model()
    vector = vectors(1)[0].requires_grad_()
    info = [{("residual_mid", 2): ([-1], vector), "replacing_mode": "normalized", "overlay_strength": 0.5}, {}]
    model.forward_interpret(input_ids=IDS, insert_info=info).logits[0, -1].square().sum().backward()
    found = vector.grad.clone(), model.model.layers[1].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    vector.grad = None
    with by_hand(
        model,
        [
            {
                ("residual_mid", 2): ([-1], vector[None]),
                **{k: v for k, v in info[0].items() if k != ("residual_mid", 2)},
            },
            {},
        ],
        2,
    ):
        model(IDS, use_cache=False).logits[0, -1].square().sum().backward()
    torch.testing.assert_close(found[0], vector.grad, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[1], model.model.layers[1].mlp.up_proj.weight.grad, atol=1e-3, rtol=1e-3)


def test_a_layer_that_keeps_a_copy_is_refused():
    model = tiny_model()
    layer = model.model.layers[1]
    norm = layer.post_attention_layernorm
    inner = norm.forward
    norm.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
    with pytest.raises(UnsupportedModelError, match="keeps a copy of its state between attention and MLP"):
        model.forward_interpret(input_ids=IDS, insert_info=info_at(1))
    assert norm.forward == inner
