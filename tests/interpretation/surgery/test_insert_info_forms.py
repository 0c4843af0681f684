"""What `insert_info` takes in several forms: locations, embeddings, keys that mean nothing here."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("locations", "selected"),
    [
        (slice(2, 5), [2, 3, 4]),
        (slice(-2, None), [4, 5]),
        ([0, slice(None, None, -3)], [0, 5, 2]),
        (slice(4, 400), [4, 5]),
    ],
)
def test_slices_select_columns_of_the_prompt(locations, selected):
    gathered = plan([row(layers={1: (locations, vectors(len(selected)))})])
    assert gathered.layers[1].positions.tolist() == selected


@pytest.mark.parametrize("shape", [(HIDDEN,), (1, HIDDEN), (1, 1, HIDDEN), (3, HIDDEN), (1, 3, HIDDEN)])
def test_one_vector_goes_into_every_location_and_several_into_one_each(shape):
    embedding = torch.arange(float(HIDDEN * (3 if 3 in shape else 1))).reshape(shape)
    found = plan([row(layers={1: ([2, 0, 5], embedding)})]).layers[1].vectors
    assert torch.equal(found, embedding.expand(1, 3, HIDDEN)[0])


def test_a_key_of_ones_own_is_ignored_with_a_warning():
    with pytest.warns(UserWarning, match="insert_info: key 'colour' is ignored; known are layers"):
        assert plan([row(colour=1)]).layers[1].rows.tolist() == [0]
