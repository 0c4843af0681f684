"""Valid forms of `insert_info`, how they are collected, and the message for each invalid one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.interpretation.surgery.hooks import plan_surgery

HIDDEN, LAYERS, PROMPT = 8, 4, 6


def vectors(n: int = 1, fill: float = 1.0) -> torch.Tensor:
    return torch.full((1, n, HIDDEN), fill)


def row(mode="normalized", strength=1.0, **options) -> dict:
    layers = options.pop("layers", {1: ([2], vectors())})
    return {**layers, "replacing_mode": mode, "overlay_strength": strength, **options}


def plan(insert_info, **overrides):
    shape = {"n_layers": LAYERS, "hidden_size": HIDDEN, "prompt_length": PROMPT}
    batch_size = overrides.pop("batch_size", None) or len(insert_info or [])
    return plan_surgery(insert_info, batch_size=batch_size, **{**shape, **overrides})


@pytest.mark.parametrize("nothing", [None, [{}], [{}, {}], [{"replacing_mode": "addition", "overlay_strength": 1.0}]])
def test_asking_for_nothing_plans_nothing(nothing):
    assert plan(nothing) is None


def test_no_locations_ask_for_nothing():
    assert plan([row(layers={1: ([], torch.zeros(1, 0, HIDDEN))})]) is None


def test_everything_is_gathered_by_layer():
    embedding = torch.arange(3 * HIDDEN).float().reshape(1, 3, HIDDEN)
    gathered = plan(
        [
            row(layers={2: ([5, 0, -2], embedding), 0: ([1], vectors())}),
            {},
            row("addition", 2.5, layers={2: ([3], vectors())}),
        ]
    )
    assert list(gathered.layers) == [0, 2]
    assert gathered.batch_size == 3
    at = gathered.layers[2]
    assert at.rows.tolist() == [0, 0, 0, 2]
    assert at.positions.tolist() == [5, 0, 4, 3]
    assert torch.equal(at.vectors, torch.cat([embedding[0], vectors()[0]]))
    assert at.strength.tolist() == [1.0, 1.0, 1.0, 2.5]
    assert at.keep.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_normalized_keeps_the_rest_and_addition_keeps_all():
    assert plan([row(strength=0.25)]).layers[1].keep.tolist() == [0.75]
    assert plan([row("addition", 0.25)]).layers[1].keep.tolist() == [1.0]


def test_norm_matched_modes_keep_as_the_others_and_are_marked():
    info = [row("norm_matched", 0.25), row("norm_matched_addition", 0.25), row(strength=0.25)]
    at = plan(info).layers[1]
    assert at.keep.tolist() == [0.75, 1.0, 0.75]
    assert at.norm_matched.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "strength",
    [
        *([0.5, 2], (0.5, 2), np.array([0.5, 2]), torch.tensor([0.5, 2])),
        *({1: [0.5, 2], 3: 4}, {np.int64(3): [4], 1: (0.5, 2)}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_strengths_of_locations_and_layers(strength):
    layers = {1: ([2, 0], vectors(2))} | ({3: ([5], vectors())} if isinstance(strength, dict) else {})
    found = plan([row("addition", strength, layers=layers)]).layers
    assert found[1].positions.tolist() == [2, 0]
    assert found[1].strength.tolist() == [0.5, 2.0]
    if isinstance(strength, dict):
        assert found[3].strength.tolist() == [4.0]


def test_strengths_of_locations_go_for_every_layer():
    layers = {1: ([2, 0], vectors(2)), 3: ([5, 4], vectors(2))}
    found = plan([row(strength=[0.5, 0.25], layers=layers)]).layers
    for at in found.values():
        assert at.strength.tolist() == [0.5, 0.25]
        assert at.keep.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    "layer", [1, np.int64(1), np.uint8(1), torch.tensor(1)], ids=["int", "int64", "uint8", "tensor"]
)
@pytest.mark.parametrize(
    "locations", [[2], (2,), range(2, 3), np.array([2]), torch.tensor([2])], ids=lambda x: type(x).__name__
)
def test_layers_and_locations_are_whatever_indexes(layer, locations):
    gathered = plan([row(layers={layer: (locations, vectors())})])
    assert gathered.layers[1].positions.tolist() == [2]


def test_keys_for_retrieving_are_carried_along():
    assert plan([row(retrieve_layer=3, retrieve_anything=None)]).layers[1].rows.tolist() == [0]


def test_negative_positions_count_from_the_prompts_end_cached_columns_included():
    assert plan([row(layers={1: ([-1], vectors())})], prompt_length=9, cached_length=4).layers[
        1
    ].positions.tolist() == [8]


def test_left_padding_counts():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    assert plan([row()], attention_mask=mask).layers[1].positions.tolist() == [2]


def test_a_mask_of_the_last_columns_alone_is_aligned_to_the_right():
    info = [row(layers={1: ([4], vectors())})]
    assert plan(info, attention_mask=torch.tensor([[0, 1, 1]])).layers[1].positions.tolist() == [4]
    with pytest.raises(ValueError, match=r"position 3: masked"):
        plan([row(layers={1: ([3], vectors())})], attention_mask=torch.tensor([[0, 1, 1]]))


def test_gradients_reach_the_callers_embedding():
    embedding = vectors().requires_grad_()
    plan([row(layers={1: ([2], embedding)})]).layers[1].vectors.sum().backward()
    assert torch.equal(embedding.grad, torch.ones_like(embedding))


def spoiled(value: float) -> torch.Tensor:
    embedding = vectors(2)
    embedding[0, 1, 3] = value
    return embedding


PLACE = r"insert_info, row 1: "
BAD_ROWS = {
    "not a dict": (["x"], r"a list where a dict is needed; \{\} leaves the row alone"),
    "digit string": ({"1": ([2], vectors())}, r"key '1' is a string; give the layer as an integer: 1"),
    "misspelt option": (
        row(overlay_strenght=1),
        r"unknown key 'overlay_strenght' \(did you mean 'overlay_strength'\?\)",
    ),
    "a key of another kind": ({1.5: ([2], vectors())}, r"key 1.5 is neither a layer \(an integer\), nor a place"),
    "layer too high": (row(layers={4: ([2], vectors())}), r"layer 4 is out of range; .* layers 0 to 3"),
    "layer negative": (row(layers={-1: ([2], vectors())}), r"layer -1 is out of range; .* layers 0 to 3"),
    "layer twice": (row(layers={1: ([2], vectors()), torch.tensor(1): ([3], vectors())}), r"layer 1 is given twice"),
    "mode missing": ({1: ([2], vectors()), "overlay_strength": 1.0}, r"replacing_mode is missing; it is required"),
    "strength missing": ({1: ([2], vectors()), "replacing_mode": "addition"}, r"overlay_strength is missing; it is"),
    "mode misspelt": (row("normalised"), r"unknown replacing_mode 'normalised' \(did you mean 'normalized'\?\)"),
    "mode unknown": (row("qqq"), r"unknown replacing_mode 'qqq'; known are normalized, addition, norm_matched and"),
    "mode no text": (row(["addition"]), r"unknown replacing_mode \['addition'\] "),
    "strength above one, norm-matched": (
        row("norm_matched", 1.5),
        r"layer 1, position 2: overlay_strength 1.5 must be in \[0, 1\] for norm_matched; use norm_matched_addition",
    ),
    "strength of one location": (
        row("addition", [1, -2], layers={1: ([2, -1], vectors(2))}),
        r"layer 1, position -1: overlay_strength -2.0 must be > 0 for addition; .* negate the embedding",
    ),
    "strengths for other locations": (
        row(strength=[1, 1]),
        r"layer 1, overlay_strength has 2 numbers for 1 insert locations; give one for all, one per location, or \{",
    ),
    "strengths no numbers": (row(strength=[None]), r"layer 1, overlay_strength must be a number, not None"),
    "strengths in a square": (row(strength=torch.ones(1, 1)), r"layer 1, overlay_strength must be a number, not \[1"),
    "strengths by no layers": (
        row(strength={"1": 1}),
        r"the keys of overlay_strength must be those of the embeddings: key '1' is neither",
    ),
    "strengths of other layers": (
        row(strength={2: 1}),
        r"overlay_strength is given for the layers \[2\] and embeddings for \[1\]; give one entry",
    ),
    "strengths by layer twice over": (row(strength={1: {1: 1}}), r"overlay_strength must be a number, not \{1"),
    "zero, norm-matched": (
        row("norm_matched", layers={1: ([2, 3], torch.cat([vectors(), vectors(fill=0)], 1))}),
        r"layer 1, position 3: the embedding is zero, or its norm out of range; norm_matched needs a direction",
    ),
    "norm out of range": (
        row("norm_matched_addition", layers={1: ([2], vectors(fill=1e25))}),
        r"layer 1, position 2: the embedding is zero, or its norm out of range; norm_matched_addition needs",
    ),
    "strength no number": (row(strength="much"), r"overlay_strength must be a number, not 'much'"),
    "strength above one": (row(strength=1.5), r"overlay_strength 1.5 must be in \[0, 1\] for normalized"),
    "strength negative": (
        row(strength=-0.5),
        r"overlay_strength -0.5 must be in \[0, 1\] for normalized; to .* negate",
    ),
    "strength NaN": (row(strength=float("nan")), r"overlay_strength nan must be in \[0, 1\] for normalized"),
    "addition of nothing": (row("addition", 0), r"overlay_strength 0.0 must be finite and > 0 for addition"),
    "addition without end": (
        row("addition", float("inf")),
        r"overlay_strength inf must be finite and > 0 for addition",
    ),
    "no pair": (row(layers={1: [2]}), r"layer 1, a list where \(insert_locations, embedding\) is needed"),
    "locations no list": (
        row(layers={1: (2, vectors())}),
        r"layer 1, the insert locations must be a list of integers or slices, or \"generated\", not 2",
    ),
    "locations no integers": (
        row(layers={1: ([2.5], vectors())}),
        r"layer 1, the insert locations must be .* not \[2.5\]",
    ),
    "embedding no tensor": (
        row(layers={1: ([2], [1.0])}),
        r"layer 1, the embedding must be a floating-point tensor or a callable, not a list",
    ),
    "embedding of integers": (
        row(layers={1: ([2], vectors().long())}),
        r"floating-point tensor or a callable, not a tensor of torch.int64",
    ),
    "shape": (
        row(layers={1: ([2, 3], vectors(3))}),
        r"layer 1, positions \[2, 3\]: the embedding has shape \[1, 3, 8\] .* \[1, 2, 8\] or \[2, 8\]",
    ),
    "empty slice": (
        row(layers={1: (slice(4, 2), vectors())}),
        r"layer 1, slice\(4, 2, None\) selects none of the prompt's 6 tokens",
    ),
    "position past the prompt": (
        row(layers={1: ([6], vectors())}),
        r"layer 1, position 6: outside the prompt of 6 tokens",
    ),
    "position before the prompt": (row(layers={1: ([-7], vectors())}), r"layer 1, position -7: outside .* -6 to -1"),
    "position twice": (
        row(layers={1: ([4, -2], vectors(2))}),
        r"layer 1, position -2: given twice; give each position once",
    ),
    "NaN": (
        row(layers={1: ([2, 3], spoiled(float("nan")))}),
        r"layer 1, position 3: the embedding holds NaN or infinity",
    ),
    "infinity": (
        row(layers={1: ([2, 3], spoiled(float("-inf")))}),
        r"layer 1, position 3: the embedding holds NaN or inf",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_messages_name_row_layer_position_and_remedy(name):
    bad, message = BAD_ROWS[name]
    with pytest.raises(ValueError, match=PLACE + ".*" * (not message.startswith("layer 1")) + message):
        plan([row(), bad])


def test_a_position_in_the_cache():
    with pytest.raises(ValueError, match=PLACE + r"layer 1, position 2: already in the key/value cache, which holds 3"):
        plan([{}, row()], cached_length=3)


def test_a_masked_position():
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match=PLACE + r"layer 1, position 2: masked by the attention mask \(padding\)"):
        plan([{}, row()], attention_mask=mask)


def test_an_embedding_that_overflows_the_type_of_the_model():
    info = [row(layers={1: ([2], vectors(1, 1e5))})]
    assert plan(info, dtype=torch.bfloat16) is not None
    with pytest.raises(ValueError, match=r"row 0: layer 1, position 2: .* infinity in torch.float16"):
        plan(info, dtype=torch.float16)


def test_one_entry_per_row():
    with pytest.raises(
        ValueError, match=r"insert_info has 2 entries for a batch of 3; give one dict per row, \{\} for"
    ):
        plan([row(), row()], batch_size=3)
    with pytest.raises(ValueError, match=r"insert_info has 0 entries for a batch of 1"):
        plan([], batch_size=1)


@pytest.mark.parametrize("wrong", [{}, 3, "x"], ids=["dict", "int", "text"])
def test_a_list_is_needed(wrong):
    with pytest.raises(
        ValueError, match=rf"must be a list .*, not a {type(wrong).__name__}; for .* give \[insert_info\]"
    ):
        plan(wrong, batch_size=1)
