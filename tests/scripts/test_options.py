"""Options as they are read, before anything is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from options import parse


def test_negative_indices_are_no_options():
    parsed = parse(["--layers", "-5:,-1", "--tokens", "-1"])
    assert (parsed.layers, parsed.tokens) == ("-5:,-1", "-1")


def test_layers_are_left_to_the_mapping_unless_they_are_given():
    assert parse([]).layers is None
    parsed = parse(["--mapping", "maps.safetensors", "--layers", "all"])
    assert (parsed.mapping, parsed.layers) == (Path("maps.safetensors"), "all")


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("--insert-layer", "2", (2,)),
        ("--insert-layer", "1,3", (1, 3)),
        ("--insert-layer", "same", "same"),
        ("--overlay-strength", "0.5", 0.5),
        ("--overlay-strength", "1,0.5", (1.0, 0.5)),
    ],
)
def test_one_value_or_several(option, text, value):
    assert getattr(parse([option, text]), option[2:].replace("-", "_")) == value
