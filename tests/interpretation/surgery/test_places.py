"""Insertion within layers and behind the last one, against hooks that are set by hand on the very modules."""

from __future__ import annotations

import pytest
import torch
from places_by_hand import WITHIN, by_hand, vectors
from tiny_models import available_families, tiny_model

IDS = torch.tensor([[5, 9, 17, 33, 65, 9, 12], [7, 3, 101, 44, 18, 90, 11]])
MODES = {"normalized": 0.5, "addition": 2.0, "norm_matched": 0.7, "norm_matched_addition": 1.5}
AVAILABLE = [family.model_type for family in available_families()]


def rows_at(*sites, mode="normalized", strength=0.5):
    """For two rows: other vectors and positions in each."""
    options = {"replacing_mode": mode, "overlay_strength": strength}
    first = {site: ([2, -1], vectors(2, n)) for n, site in enumerate(sites)}
    return [first | options, {site: ([3], vectors(1, 50 + n)) for n, site in enumerate(sites)} | options]


@pytest.mark.parametrize("place", WITHIN)
@pytest.mark.parametrize("family", AVAILABLE)
@torch.no_grad()
def test_every_family_at_every_place(family, place):
    model = tiny_model(family)
    info = rows_at((place, 1), (place, 3))
    with by_hand(model, info):
        expected = model(IDS, use_cache=False, output_hidden_states=True)
    found = model.forward_interpret(input_ids=IDS, output_hidden_states=True, insert_info=info)
    torch.testing.assert_close(found.logits, expected.logits, atol=2e-5, rtol=1e-4)
    for mine, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)
    assert (found.logits - model(IDS).logits).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", WITHIN)
@torch.no_grad()
def test_every_mode_while_tokens_are_generated(place, mode):
    model = tiny_model()
    info = rows_at((place, 0), (place, 2), mode=mode, strength=MODES[mode])
    info[0][place, 1] = (["generated"], vectors(1, 9))  # steering, too
    with by_hand(model, info):
        expected = model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=False)
        beams = model.generate(IDS, max_new_tokens=6, do_sample=False, num_beams=3, use_cache=False)
    options = {"max_new_tokens": 6, "do_sample": False, "insert_info": info}
    assert torch.equal(model.generate_interpret(IDS, **options), expected)
    assert torch.equal(model.generate_interpret(IDS, num_beams=3, **options), beams)
    assert not torch.equal(model.generate(IDS, max_new_tokens=6, do_sample=False), expected)


@torch.no_grad()
def test_padding_counts_as_everywhere():
    model = tiny_model()
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[:1]], dim=1)
    mask = (padded > 0).long()
    own = {("mlp_output", 1): ([4, -1], vectors(2)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    info = [{**own, ("mlp_output", 1): ([7, -1], vectors(2))}]
    expected = model.forward_interpret(input_ids=IDS[:1], insert_info=[own]).logits
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    given = {"input_ids": padded, "attention_mask": mask, "position_ids": positions}
    found = model.forward_interpret(**given, insert_info=info).logits
    torch.testing.assert_close(found[:, 3:], expected, atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="row 0: mlp_output of layer 1, position 2: masked"):
        model.forward_interpret(**given, insert_info=[{**own, ("mlp_output", 1): ([2], vectors(1))}])


@torch.no_grad()
def test_with_layers_in_one_call():
    model = tiny_model()
    info = rows_at(1, ("attention_output", 1), ("mlp_input", 2))
    within = [{key: value for key, value in own.items() if key != 1} for own in info]

    def at_the_input(_, args, kwargs):
        states = args[0].clone() if args else kwargs["hidden_states"].clone()
        for row, own in enumerate(info):
            for i, column in enumerate(own[1][0]):
                states[row, column] = 0.5 * states[row, column] + 0.5 * own[1][1][i]
        return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

    handle = model.model.layers[1].register_forward_pre_hook(at_the_input, with_kwargs=True)
    try:
        with by_hand(model, within):
            expected = model(IDS, use_cache=False).logits
    finally:
        handle.remove()
    found = model.forward_interpret(input_ids=IDS, insert_info=info).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("key", [("layer_output", 3), "resid_post.3", "blocks.3.hook_resid_post"])
@torch.no_grad()
def test_behind_the_last_layer_before_the_final_norm(key):
    model = tiny_model()
    given = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model(IDS)
    handle.remove()
    states = given[0].clone()
    states[0, 2], states[0, -1], states[1, 3] = (
        0.5 * states[row, column] + 0.5 * vector
        for row, column, vector in ((0, 2, vectors(2)[0]), (0, -1, vectors(2)[1]), (1, 3, vectors(1, 50)[0]))
    )
    expected = model.model.norm(states)
    found = model.forward_interpret(input_ids=IDS, output_hidden_states=True, insert_info=rows_at(key))
    torch.testing.assert_close(found.hidden_states[-1], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits, model.lm_head(expected), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", AVAILABLE)
@torch.no_grad()
def test_behind_the_final_norm(family):
    model = tiny_model(family)
    states = model(IDS, output_hidden_states=True).hidden_states[-1].clone()
    new = vectors(2)
    states[0, 2], states[0, -1], states[1, 3] = new[0], new[1], vectors(1, 50)[0]
    given = []
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    info = rows_at(("final_norm", 3), strength=1.0)
    found = model.forward_interpret(input_ids=IDS, output_hidden_states=True, insert_info=info)
    as_tuple = model.forward_interpret(input_ids=IDS, return_dict=False, insert_info=info)
    handle.remove()
    torch.testing.assert_close(found.hidden_states[-1], states)
    torch.testing.assert_close(given[0], states)
    assert torch.equal(as_tuple[0], found.logits)


@torch.no_grad()
def test_behind_the_final_norm_while_tokens_are_generated():
    model = tiny_model()
    direction = model.lm_head.weight[40] * 50
    info = [{("final_norm", 3): ([-1, "generated"], direction), "replacing_mode": "addition", "overlay_strength": 1.0}]
    found = model.generate_interpret(IDS[:1], insert_info=info, max_new_tokens=4, do_sample=False)
    assert found[0, 7:].tolist() == [40] * 4


def test_what_a_layer_puts_out_is_what_the_next_is_given():
    model = tiny_model()
    with torch.no_grad():
        one, other = (
            model.forward_interpret(input_ids=IDS, insert_info=rows_at(key)).logits for key in (2, ("layer_output", 1))
        )
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="layer 2 is given twice"):
        model.forward_interpret(input_ids=IDS, insert_info=rows_at(2, "resid_post.1"))


@pytest.mark.parametrize("place", [*WITHIN, "layer_output", "final_norm"])
def test_gradients_flow_through_the_embedding(place):
    model = tiny_model().requires_grad_(False)
    vector = vectors(1)[0].requires_grad_()
    info = [{(place, 3): ([-1], vector), "replacing_mode": "normalized", "overlay_strength": 1.0}, {}]
    model.forward_interpret(input_ids=IDS, insert_info=info).logits[0, -1].square().sum().backward()
    assert vector.grad.abs().max() > 0


@torch.no_grad()
def test_strengths_by_site():
    model = tiny_model()
    options = {"replacing_mode": "normalized", "overlay_strength": {1: 1.0, ("mlp_output", 2): 0.25}}
    both = {1: ([2], vectors(1)), ("mlp_output", 2): ([2], vectors(1, 1))}
    found = model.forward_interpret(input_ids=IDS[:1], insert_info=[both | options]).logits
    blended = model.forward_interpret(
        input_ids=IDS[:1],
        insert_info=[both | {"replacing_mode": "normalized", "overlay_strength": {1: 1.0, ("mlp_output", 2): 1.0}}],
    ).logits
    assert not torch.allclose(found, blended)
    with pytest.raises(ValueError, match="overlay_strength is given for the layers"):
        model.forward_interpret(
            input_ids=IDS[:1], insert_info=[both | options | {"overlay_strength": {1: 1.0, ("mlp_input", 2): 1.0}}]
        )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("mlp", 1), "'mlp' is no place in a layer; use one of residual, attention_output, residual_mid, "),
        (("mlp_output", 4), "layer 4 is out of range"),
        (("mlp_output", "1"), "neither a layer"),
        (("final_norm", 1), "final_norm of layer 1: the final norm follows the last decoder layer alone; give layer 3"),
        (4, "layer 4 is out of range"),
        ("blocks.1.hook_mlp_out", "is a place within a layer"),
    ],
)
def test_sites_that_there_are_not(key, message):
    info = [{key: ([2], vectors(1)), "replacing_mode": "normalized", "overlay_strength": 1.0}, {}]
    with pytest.raises(ValueError, match=message):
        tiny_model().forward_interpret(input_ids=IDS, insert_info=info)


def test_a_module_that_runs_twice_in_a_pass_is_refused():
    model = tiny_model()
    own = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = own
    layer = model.model.layers[1]
    inner = layer.forward
    layer.forward = lambda *args, **kwargs: (layer.mlp(torch.zeros(2, 7, 32)), inner(*args, **kwargs))[1]
    with pytest.raises(ValueError, match="mlp_output of layer 1 runs more than once in a pass"):
        model.forward_interpret(input_ids=IDS, insert_info=rows_at(("mlp_output", 1)))
