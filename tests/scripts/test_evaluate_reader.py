"""The program that measures readers, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import evaluate_reader
import pytest
import train_reader
from reader_files import write_lora
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY

ROWS = ["prompt,label,split", "Hello,cat,training", "Hi,dog,validation", "Well,fish,test", "Yes,a cow,test"]


@pytest.fixture
def options(model, workplace):
    Path("topics.csv").write_text("\n".join(ROWS) + "\n")
    where = ["--model", str(model), "--device", "cpu", "--dtype", "float32", "--data", "topics.csv"]
    for kind in ("scale_only", "scalar_affine"):
        more = ["--layer", "2", "--steps", "2", "--kind", kind, "--output", f"readers/{kind}.safetensors"]
        assert train_reader.main([*where, *more]) == 0
    return where


def test_every_way_is_measured(options, capsys):
    readers = ["readers/scale_only.safetensors", "readers/scalar_affine.safetensors"]
    capsys.readouterr()
    assert evaluate_reader.main([*options, "--reader", *readers, "--json", "figures.json"]) == 0
    told = capsys.readouterr().out
    assert "2 vectors, 2 labels; by chance 50.0%" in told and "recall@1, another's vector: " in told
    figures = json.loads(Path("figures.json").read_text())
    assert list(figures)[:2] == readers and [name.partition(":")[0] for name in figures][2:] == [
        "untrained",
        "no reader",
    ]
    for found in figures.values():
        assert found["recall@10"]["value"] == 1.0 and found["recall@1"]["n"] == 2
        hit, other = (found[f"recall@1{which}"]["value"] for which in ("", ", another's vector"))
        assert hit + other == 1.0  # of two vectors and two labels


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (ROWS[:3], [], "topics.csv: found 0 labels to test, expected two at least"),
        (ROWS, ["--layer", "3"], "found layers 3, expected 2"),
        (ROWS, ["--reader", "none.safetensors"], "reader none.safetensors: there is no such file"),
        (ROWS, ["--reader", "oracle_addition"], "expected a SelfIE adapter"),
        (ROWS, ["--json", "topics.csv"], "would be written over the data"),
    ],
)
def test_bad_input_is_one_line(options, capsys, rows, more, message):
    Path("topics.csv").write_text("\n".join(rows) + "\n")
    write_lora(Path(), tiny_model(vocab_size=VOCABULARY), "oracle_addition")
    assert evaluate_reader.main([*options, "--reader", "readers/scale_only.safetensors", *more]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], lines
