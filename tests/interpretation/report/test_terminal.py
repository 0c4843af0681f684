"""The terminal view."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from report_records import failed, grid_records, hostile_records, shown
from rich.cells import cell_len
from rich.console import Console
from transformers.interpretation.report import (
    show,
)
from transformers.interpretation.results.calibration import Calibration

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


@pytest.mark.parametrize("width", [30, 80, 137])
def test_the_terminal_view_keeps_within_the_width(width):
    lines = shown(grid_records(layers=5, tokens=9), width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    # Every token heads a column, every block has all layers, the last layer first.
    text = "\n".join(lines)
    for index in range(9):
        assert re.search(rf"(^|\s){index} ", text)
    layers = [int(line.split()[0]) for line in lines if re.match(r"\s*\d+ \.\d", line)]
    assert layers[:5] == [4, 3, 2, 1, 0]
    assert len(layers) % 5 == 0


def test_the_terminal_view_shows_the_named_example():
    text = shown(RECORDS, 100, example="fact_2")
    assert "fact_2" in text and "fact_1" not in text
    with pytest.raises(ValueError, match=r"no example 'nobody'; there are: fact_1, fact_2"):
        shown(RECORDS, 100, example="nobody")
    with pytest.raises(ValueError, match="no interpretations"):
        shown([], 100)


def test_the_terminal_view_hides_what_is_not_trusted():
    calibration = Calibration((0.0, 0.5), (0.1, 0.6), "made up")
    records = [RECORDS[0], failed(RECORDS[1]), *RECORDS[2:]]
    plain = shown(records, 4000, calibration=calibration)
    hiding = shown(records, 4000, calibration=calibration, min_trust=0.3)
    assert "·" not in plain and "trust below 0.3" in hiding
    first = [record for record in RECORDS if record.name == "fact_1" and record is not RECORDS[1]]
    assert hiding.count("·") - 1 == sum(calibration.trust(record.interpretation_weights) < 0.3 for record in first)
    assert hiding.count("the embedding has NaN") == 1


@pytest.mark.parametrize("width", [30, 100])
def test_vectors_have_a_line_each(width):
    cells = grid_records(examples=1, layers=1, tokens=12)
    names = [f"feature {index} × 12.5" if index else "東京" * 40 for index in range(12)]
    records = [
        replace(cell, layer_idx=None, token_source="vector", token_idx=index, current_token=name)
        for index, (cell, name) in enumerate(zip(cells, names))
        if index != 5
    ]
    lines = shown(records, width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    found = [re.match(r"\s*(\d+) (\S.*?) +\.\d ", line) for line in lines]
    indices = [int(match[1]) for match in found if match]
    assert indices == [index for index in range(12) if index != 5]
    if width == 100:
        assert [match[2] for match in found if match][1:4] == names[1:4]


def test_hostile_strings_do_not_steer_the_terminal():
    for record in hostile_records(RECORDS):
        text = shown([record], 60)
        assert not set(text) & {"\x1b", "\u202e", "\u2028"}
        assert max(cell_len(line) for line in text.splitlines()) <= 60


def test_the_terminal_view_gives_question_marks_where_the_encoding_ends():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    show(RECORDS, console=Console(file=file, width=80))
    file.flush()
    assert b"capital" in raw.getvalue() and b"?" in raw.getvalue()
