"""Cells that the server streams, and tables of them: equal to what `interpret` gives for the same settings."""

from __future__ import annotations

import pytest
from explorer_client import Client
from tiny_folder import write_tiny_folder
from transformers.interpretation import InterpretationPromptSpec, interpret, read_csv, read_parquet
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.report.grid import examples_of
from transformers.interpretation.report.page import cell_data, data_json
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION
from transformers.interpretation.runs import source_activations

SHORT = {"text": "x: _ is"}
SPEC = InterpretationPromptSpec("custom", text="x: _ is")
ASKED = {"prompt": "ab cd ef", "raw": True, "interpretation_prompt": SHORT, "max_new_tokens": 4}
CHOICES = [
    {},
    {"raw": False},
    {"layers": "1:4", "tokens": "last,0"},
    {"layers": [4, 0], "tokens": [1, -1]},
    {"layers": 2, "tokens": "mean(1:4),0,mean(0:2)"},
    {"layers": "1:3", "tokens": "segment(1:2),0,segment(2:3)", "max_new_tokens": 2},
    {"minus": "ab cd eg"},
    {"minus": "ab", "tokens": "last,0"},
    {"place": "mlp_output"},
    {"insert_layer": "same", "layers": "0:4"},
    {"insert_layer": [0, 2], "overlay_strength": [0.5], "replacing_mode": "norm_matched"},
    {"guidance": 0, "plausibility": 0.5, "deep_gain": 1},
    {"samples": 3, "temperature": 2.0, "top_p": 0.9, "seed": 7, "layers": "1:3"},
]


def expected(tiny, **options):
    settings = {name: value for name, value in {**ASKED, **options}.items() if name != "prompt"}
    return interpret(*tiny, ASKED["prompt"], **settings | {"interpretation_prompt": SPEC})


def as_cells(records):
    return [cell_data(record, BUILT_IN_CALIBRATION) for record in records]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_cells_are_those_of_interpret(client, tiny, options):
    cells = client.cells({**ASKED, **options}, "compare" if "minus" in options else "interpret")
    assert sorted(cells) == sorted(as_cells(expected(tiny, **options)))


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_tables_are_those_of_interpret(client, tiny, tmp_path, options):
    results = expected(tiny, **options)
    results.to_csv(tmp_path / "expected.csv")
    status, content = client.post("table", {**ASKED, **options, "format": "csv"})
    assert status == 200 and content == (tmp_path / "expected.csv").read_bytes()


def test_a_table_is_the_same_after_other_questions_about_the_prompt(client, tiny, tmp_path):
    for options in [{"tokens": "mean(0:2)"}, {"tokens": "mean(1:3)"}, {"minus": "xyz", "tokens": "last"}, {}]:
        client.cells({**ASKED, **options})
    for options in [{"tokens": "mean(1:3),mean(0:2),1"}, {"minus": "xyz", "tokens": "2"}, {"layers": "2"}]:
        expected(tiny, **options).to_csv(tmp_path / "expected.csv")
        _, content = client.post("table", {**ASKED, **options})
        assert content == (tmp_path / "expected.csv").read_bytes()


def test_parquet_and_page_hold_the_same(client, tiny, tmp_path):
    results = expected(tiny)
    (tmp_path / "table.parquet").write_bytes(client.post("table", {**ASKED, "format": "parquet"})[1])
    assert read_parquet(tmp_path / "table.parquet").dataframe().equals(results.dataframe())
    assert data_json(results).encode() in client.post("table", {**ASKED, "format": "page"})[1]


def test_the_stream_begins_with_the_grid_and_a_rough_one_comes_first(client, tiny):
    with client.stream("interpret", {**ASKED, "tokens": "0"}) as events:
        found = list(events)
    (grid,) = examples_of(expected(tiny, tokens="0"))
    columns = [[column.token_idx, column.text, column.source] for column in grid.columns]
    assert found[0] == ("begun", {"layers": [0, 1, 2, 3, 4], "columns": columns, "n_cells": 5})
    layers = [cell[0] for name, data in found if name == "cells" for cell in data["cells"]]
    assert layers == [0, 4, 2, 1, 3]


def test_samples_are_numbered(client, tiny):
    options = {"samples": 2, "tokens": "0", "layers": "1"}
    with client.stream("interpret", {**ASKED, **options}) as events:
        found = [data for name, data in events if name == "cells"]
    numbers = [number for data in found for number in data["samples"]]
    cells = [cell for data in found for cell in data["cells"]]
    assert numbers == [0, 1] and cells == as_cells(expected(tiny, **options))


def test_an_output_that_ends_early_has_no_cells(client, tiny, monkeypatch):
    monkeypatch.setattr(source_activations, "continue_greedily", lambda *_: ())
    cells = client.cells({**ASKED, "layers": "0"})  # which compares their number with the one told
    assert {cell[1] for cell in cells} == set(range(8))


def test_the_prompts_tokens_are_those_of_the_grid(client):
    _, found = client.post("tokenize", {"prompt": "a b", "raw": True})
    assert [(one["index"], one["text"]) for one in found["tokens"]] == [(0, "a"), (1, "␣"), (2, "b")]
    assert found["count"] == 3


def test_lists_in_a_table_can_be_read_back(client, tmp_path):
    (tmp_path / "table.csv").write_bytes(client.post("table", ASKED)[1])
    assert len(read_csv(tmp_path / "table.csv")) == 5 * 9


@pytest.mark.parametrize("options", [{}, {"samples": 2, "seed": 3}, {"question": "what?", "layers": "1"}], ids=str)
def test_the_lines_of_python_give_the_same(tiny, tmp_path, options):
    text = "x: _ {question}" if "question" in options else "x: _"
    asked = {**ASKED, **options, "raw": True, "interpretation_prompt": {"text": text}}
    with Explorer(*tiny, name=str(write_tiny_folder(tmp_path))) as explorer:
        client = Client(explorer.url)
        code = client.post("table", {**asked, "format": "python"})[1].decode()
        content = client.post("table", asked)[1]
    names = {}
    exec(code.replace("print(", "repr("), names)
    names["results"].to_csv(tmp_path / "expected.csv")
    assert content == (tmp_path / "expected.csv").read_bytes()
