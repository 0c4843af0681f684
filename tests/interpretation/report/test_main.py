"""The command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from report_records import data_of, failed, grid_records
from transformers.interpretation.features.table import ShownContext, write_contexts
from transformers.interpretation.interpretations import Interpretations
from transformers.interpretation.report.__main__ import main

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "interpretations.csv"
    Interpretations([*RECORDS[1:], failed(RECORDS[0])]).to_csv(path)
    return path


def test_the_command_writes_a_page_beside_the_csv(csv, capsys):
    assert main([str(csv)]) == 0
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    cells = [
        cell for example in data_of(html)["examples"] for reading in example["readings"] for cell in reading["cells"]
    ]
    assert len(cells) == len(RECORDS)
    assert capsys.readouterr().out == f"{len(RECORDS)} interpretations in {csv.with_suffix('.html')}\n"


def test_of_a_large_table_a_part_is_shown_and_said_to_be_one(csv, capsys):
    Interpretations(RECORDS).to_csv(csv)
    assert main([str(csv), "--cells", str(len(RECORDS) - 1)]) == 0
    told = capsys.readouterr().out.splitlines()
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    assert [example["name"] for example in data_of(html)["examples"]] == ["fact_1"]
    assert told[1].startswith("Shown are ") and told[1].endswith("interpretations.csv --examples 1:")
    assert f'<p class="sum part">{told[1]}</p>' in html
    assert main([str(csv), "--examples", "1:"]) == 0
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    assert [example["name"] for example in data_of(html)["examples"]] == ["fact_2"]
    assert main([str(csv)]) == 0
    assert 'class="sum part"' not in csv.with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_command_writes_what_it_is_asked_for(csv, tmp_path, capsys):
    figure, page_file = tmp_path / "grid.png", tmp_path / "other.html"
    assert main([str(csv), "--show", "fact_2", "--grid-figure", str(figure), "-o", str(page_file)]) == 0
    assert figure.exists() and page_file.exists()
    assert "fact_2" in capsys.readouterr().out
    assert main([str(csv), "--answers-figure", str(tmp_path / "answers.svg")]) == 0
    assert not csv.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "cannot read"),
        ("a,b\n1,2\n", [], "not a file of interpretations"),
        ("the header alone", [], "has no interpretations"),
        ("good", ["--show", "nobody"], "no example 'nobody'"),
        ("good", ["--examples", "x"], "no range of examples"),
        ("good", ["--examples", "9:"], "has no interpretations of such examples"),
        ("good", ["--cells", "0"], "cells is 0"),
        ("good", ["--calibration", "nowhere.json"], "nowhere.json"),
        ("good", ["--calibration", "x.csv"], "x.csv has no calibration"),
        ("good", ["-o", "no/such/folder/page.html"], "No such file or directory"),
        ("good", ["--grid-figure", "grid.nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, content, arguments, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.csv"
    if content in ("good", "the header alone"):
        Interpretations(RECORDS if content == "good" else []).to_csv(path)
    elif content:
        path.write_text(content)
    assert main([str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1


def test_the_report_imports_without_its_libraries_and_figures_say_what_to_install():
    code = (
        "import sys\n"
        "for name in ('jinja2', 'rich', 'matplotlib', 'matplotlib.figure', 'pandas'): sys.modules[name] = None\n"
        "from transformers.interpretation.report import grid_figure\n"
        "try: grid_figure([])\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "figures need matplotlib: pip install matplotlib"


def test_a_calibration_of_ones_own_reaches_page_and_terminal(tmp_path, capsys):
    Interpretations(RECORDS).to_csv(tmp_path / "x.csv")
    own = {"scores": [0.0, 0.6], "shares": [0.125, 0.875], "source": "my own model"}
    (tmp_path / "evaluation.json").write_text(json.dumps({"trust": {"calibration": own}}))
    arguments = [str(tmp_path / "x.csv"), "--calibration", str(tmp_path / "evaluation.json")]
    assert main(arguments) == 0
    html = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "my own model" in html and '<option value="875"' in html
    capsys.readouterr()
    assert main([*arguments, "--show", "--min-trust", "0.5"]) == 0
    text = capsys.readouterr().out
    assert text.count("·") > 1 and "trust below 0.5" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "interpretations.csv"], "the page .* would be written over the table"),
        (["-o", "interpretations.csv.manifest.json"], "the page .* would be written over the table's manifest"),
        (["-o", "thesis.html"], "thesis.html exists and is no report"),
        (["-o", "pipe"], "cannot write pipe: it is no ordinary file"),
        (["--grid-figure", "."], r"\. is a folder"),
        (["--grid-figure", "interpretations.csv"], "the grid figure .* would be written over the table"),
        (["--grid-figure", "a.png", "--answers-figure", "a.png"], "the answers figure .* over the grid figure"),
    ],
)
def test_no_output_takes_the_place_of_another_file(csv, capsys, monkeypatch, options, told):
    monkeypatch.chdir(csv.parent)
    (csv.parent / "thesis.html").write_text("<p>mine</p>")
    os.mkfifo("pipe")
    before = csv.read_bytes()
    assert main([csv.name, *options]) == 2
    assert re.search(f"^error: {told}", capsys.readouterr().err)
    assert csv.read_bytes() == before
    assert (csv.parent / "thesis.html").read_text() == "<p>mine</p>"
    csv.rename("table.html")
    assert main(["table.html"]) == 2
    assert (csv.parent / "table.html").read_bytes() == before


def test_contexts_of_vectors(tmp_path, capsys):
    csv, contexts = tmp_path / "vectors.csv", tmp_path / "contexts.jsonl"
    one = replace(RECORDS[0], name="vectors", layer_idx=None, token_idx=7, current_token="v", token_source="vector")
    Interpretations([one]).to_csv(csv)
    write_contexts(contexts, [(7, [ShownContext(2.0, ("a", "b"), 1)])])
    assert main([str(csv), "--contexts", str(contexts)]) == 0
    assert data_of(csv.with_suffix(".html").read_text(encoding="utf-8"))["contexts"] == {"7": [["a", "b", "", "2"]]}
    csv.with_suffix(".html").unlink()
    for content, message in (
        ('{"index": 8, "contexts": []}', "none of the vectors"),
        ('{"index": 7, "contexts": [{"activation": 1, "pieces": ["a"], "at": 1}]}', "token 1 of 1"),
        ("nothing", "contexts.jsonl"),
    ):
        contexts.write_text(content)
        assert main([str(csv), "--contexts", str(contexts)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert main([str(csv), "--contexts", str(csv.with_suffix(".html"))]) == 2
    assert not csv.with_suffix(".html").exists()
