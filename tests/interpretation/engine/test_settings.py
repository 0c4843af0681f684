"""What settings are valid, and which are the same."""

from __future__ import annotations

import pytest
import torch
from transformers.interpretation.engine.settings import InterpretationSettings


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"insert_layer": -1}, "insert_layer is -1: count decoder layers from 0"),
        ({"insert_layer": [1, 3, 1]}, "insert_layer is 1,3,1: name each layer once"),
        ({"insert_layer": "x"}, "insert_layer is 'x': give a decoder layer, several (1,3), or same"),
        ({"insert_layer": ()}, "insert_layer is (): give a decoder layer, several (1,3), or same"),
        ({"insert_layer": 1.5}, "insert_layer is 1.5: give a decoder layer, several (1,3), or same"),
        (
            {"replacing_mode": "add"},
            "replacing_mode is 'add': use one of normalized, addition, norm_matched, norm_matched_addition",
        ),
        (
            {"overlay_strength": [0.5, 2]},
            "overlay_strength is 2: must be in [0, 1] for normalized; use addition for more",
        ),
        ({"overlay_strength": 1.5}, "overlay_strength is 1.5: must be in [0, 1] for normalized; use addition for more"),
        (
            {"overlay_strength": 0.0, "replacing_mode": "addition"},
            "overlay_strength is 0.0: must be finite and > 0 for addition",
        ),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: at least one token is needed"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5: give a whole number"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError) as raised:
        InterpretationSettings(**wrong)
    assert str(raised.value) == message


def test_settings_in_other_words_are_the_same_settings():
    assert InterpretationSettings(insert_layer=[1]) == InterpretationSettings(insert_layer="1")
    assert InterpretationSettings(insert_layer=[1]) == InterpretationSettings()
    assert InterpretationSettings(insert_layer=[3, 1]) == InterpretationSettings(insert_layer="1,3")
    strengths = InterpretationSettings(overlay_strength=torch.tensor([0.5, 1.0]))
    assert strengths == InterpretationSettings(overlay_strength=[0.5, 1])
    assert hash(strengths) == hash(InterpretationSettings(overlay_strength=(0.5, 1)))
