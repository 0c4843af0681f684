"""States of deep layers are scaled up at the last placeholder; everything else is unchanged."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from transformers.interpretation import InterpretationPrompt
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings

PROMPT = InterpretationPrompt("p", (5, 17, 99, 23, 64, 31), (1, 2, 4), "p")
NEW = 5


def test_the_gain_rises_from_seven_to_eight_tenths_of_the_depth():
    settings = InterpretationSettings(deep_gain=4.0)
    depths = [None, 0.0, 0.5, 0.7, 0.75, 0.8, 1.0]
    assert [settings.gain(depth) for depth in depths] == pytest.approx([1, 1, 1, 1, 2.5, 4, 4])
    assert {InterpretationSettings().gain(depth) for depth in depths} == {1.0}


@pytest.mark.parametrize("depth", [None, 0.5, 0.75, 1.0])
def test_an_interpretation_equals_generation_with_a_longer_last_vector(depth):
    model = tiny_model(eos_token_id=None)
    settings = InterpretationSettings(insert_layer=1, max_new_tokens=NEW, deep_gain=3.0)
    for vector in torch.randn(3, 32, generator=torch.Generator().manual_seed(0)):
        (found,) = interpret_chunk(model, [Cell(vector, PROMPT, depth=depth)], settings, batch_size=1)
        factors = torch.tensor([1.0, 1.0, {None: 1.0, 0.5: 1.0, 0.75: 2.0, 1.0: 3.0}[depth]])
        info = {1: ([1, 2, 4], factors[None, :, None] * vector), "replacing_mode": "normalized"}
        ids = torch.tensor([PROMPT.input_ids])
        text = model.generate_interpret(
            ids,
            attention_mask=torch.ones_like(ids),
            insert_info=[info | {"overlay_strength": 1.0}],
            do_sample=False,
            max_new_tokens=NEW,
        )
        assert list(found.token_ids) == text[0, ids.shape[1] :].tolist()


def test_equal_vectors_of_different_depth_are_not_one_cell():
    model = tiny_model(eos_token_id=None)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    settings = InterpretationSettings(max_new_tokens=NEW, deep_gain=6.0)
    cells = [Cell(vector, PROMPT, depth=depth) for depth in (0.1, 1.0, 0.2)]
    shallow, deep, again = interpret_chunk(model, cells, settings, batch_size=3)
    assert shallow == again != deep


def test_a_gain_that_overflows_is_reported_in_the_cells_status():
    model = tiny_model(eos_token_id=None)
    settings = InterpretationSettings(max_new_tokens=NEW, deep_gain=1e30)
    cells = [Cell(torch.full((32,), 1e20), PROMPT, depth=depth) for depth in (0.0, 1.0)]
    shallow, deep = interpret_chunk(model, cells, settings, batch_size=2)
    assert "the vector has NaN or infinity" in deep.status != shallow.status


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gain_out_of_range(gain):
    with pytest.raises(ValueError, match="deep_gain is"):
        InterpretationSettings(deep_gain=gain)
