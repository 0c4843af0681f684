"""Whatever is given as `insert_info`: a plan that does exactly that, or one clear `ValueError`."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.interpretation.surgery.hooks import plan_surgery

HIDDEN, LAYERS, PROMPT = 4, 3, 5
LONG = "x" * 10_000_000
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@st.composite
def embeddings(draw, positions: int):
    """Mostly what fits; else another shape, type or content."""
    shape = draw(st.sampled_from([(1, positions, HIDDEN)] * 6 + [(positions, HIDDEN), (1, positions + 1, HIDDEN), ()]))
    dtype = draw(st.sampled_from([torch.float32] * 4 + [torch.bfloat16, torch.float64, torch.long, torch.bool]))
    tensor = torch.full(shape, draw(st.sampled_from([1, 1, 1, 2])), dtype=dtype)
    if dtype.is_floating_point and draw(st.integers(0, 9)) == 0:
        tensor = tensor * draw(st.sampled_from([float("nan"), float("inf")]))
    return draw(st.sampled_from([tensor] * 9 + [tensor.tolist()]))


@st.composite
def entries(draw):
    """(insert_locations, embedding), more or less."""
    positions = draw(st.lists(st.integers(-PROMPT - 1, PROMPT), max_size=3))
    locations = draw(st.sampled_from([positions, tuple(positions), np.array(positions, dtype=int), "12", 1.5]))
    return draw(st.just((locations, draw(embeddings(len(positions))))) | st.just([locations]) | ANYTHING)


ROWS = st.dictionaries(
    st.integers(-1, LAYERS) | st.sampled_from([np.int64(1), "1", 0.5, "layer", "retrieve_me", None]),
    entries(),
    max_size=2,
).flatmap(
    lambda layers: st.fixed_dictionaries(
        {},
        optional={
            "replacing_mode": st.sampled_from(["normalized", "addition", "norm_matched", "normalised"]) | ANYTHING,
            "overlay_strength": st.sampled_from([0, 0.5, 1, 2.0, -1, float("nan"), "1"])
            | st.lists(st.sampled_from([0.5, 1, 2]), max_size=3)
            | st.dictionaries(st.integers(0, LAYERS), st.just(0.5) | st.lists(st.just(1), max_size=2), max_size=2)
            | ANYTHING,
        },
    ).map(lambda options: {**layers, **options})
)


@pytest.mark.filterwarnings("ignore:insert_info. key .* is ignored")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS | st.just({}), min_size=1, max_size=3) | st.lists(ANYTHING, max_size=2) | ANYTHING)
def test_any_insert_info_is_a_plan_or_a_clear_error(insert_info):
    batch_size = len(insert_info) if isinstance(insert_info, list) else 1
    try:
        plan = plan_surgery(
            insert_info, n_layers=LAYERS, hidden_size=HIDDEN, batch_size=batch_size, prompt_length=PROMPT
        )
    except ValueError as error:
        assert str(error).startswith("insert_info")
        assert "\n" not in str(error)
        return
    expected = {
        (layer, row, int(position) % PROMPT)
        for row, info in enumerate(insert_info or [])
        for layer, entry in info.items()
        if not isinstance(layer, str)
        for position in entry[0]
    }
    planned = [] if plan is None else list(plan.layers.items())
    found = [(layer, *where) for layer, at in planned for where in zip(at.rows.tolist(), at.positions.tolist())]
    assert len(found) == len(set(found))
    assert set(found) == {(operator.index(layer), row, position) for layer, row, position in expected}


@pytest.mark.parametrize(
    "enormous",
    [LONG, [LONG], [{1: LONG}], [{1: (LONG, 0)}], [{"replacing_mode": LONG, 1: None}]],
)
def test_an_enormous_string_is_named_in_short(enormous):
    with pytest.raises(ValueError, match="insert_info") as caught:
        plan_surgery(enormous, n_layers=LAYERS, hidden_size=HIDDEN, batch_size=1, prompt_length=PROMPT)
    assert len(str(caught.value)) < 1000
