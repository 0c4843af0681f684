"""Options as they are read, before anything is checked."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest
from common.options import ONE_PROMPT, add_options, parse_options, request_of
from get_interpretations_from_examples import parse
from transformers.interpretation.runs.request import RunRequest


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


def test_every_field_of_a_request_is_an_option_with_its_default():
    request = request_of(parse([]), "m")
    given = {"model": "m", "examples": parse([]).examples, "output": Path("interpretations.csv")}
    assert request == RunRequest(**given)
    words = ["--interpretation-prompt", "a", "--interpretation-prompt", "b", "--csv-safe", "--batch-size", "7"]
    assert request_of(parse(words), "m") == RunRequest(
        **given, interpretation_prompts=("a", "b"), csv_safe=True, batch_size=7
    )
    unsettable = {field.name for field in fields(RunRequest)} - set(vars(parse([])))
    assert unsettable == {"chunk_cells"}


def test_a_program_may_change_a_default_and_the_help_says_so():
    parser = argparse.ArgumentParser()
    add_options(
        parser, "layers", "interpretation_prompts", layers={"default": "last"}, interpretation_prompts=ONE_PROMPT
    )
    parsed = parse_options(parser, ["--layers", "-5:"])
    assert (parsed.layers, parsed.interpretation_prompt) == ("-5:", "describe")
    shown = " ".join(parser.format_help().split())
    assert "(after the last norm) (default: last)" in shown
    assert "a file (default: describe)" in shown
