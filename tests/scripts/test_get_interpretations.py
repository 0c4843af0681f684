"""The main script as a user runs it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import get_interpretations_from_examples as script
import pytest
from script_runs import arguments, rows_of
from tiny_folder import write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import read_parquet
from transformers.interpretation.results.record import COLUMNS
from transformers.interpretation.runs import csv_writer, parquet_writer
from transformers.interpretation.runs.csv_writer import Found, clear_leftovers, open_output
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.shards import shards_folder

SCRIPT = Path(script.__file__)
CAMPAIGN = Path(__file__).resolve().parent / "kill_campaign.py"


def test_a_run_and_its_repetition(model, workplace, capsys):
    assert script.main(arguments(model, "--layers", "-2:", "--tokens", "-1")) == 0
    told = capsys.readouterr()
    line = r"4 interpretations in [\d.]+ s \([\d,.]+/s\): interpretations\.csv \(report: interpretations\.html\)\n"
    assert re.fullmatch(line, told.out)
    assert "float32 on cpu" in told.err
    assert "4/4" in told.err
    rows = rows_of("interpretations.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["name"], row["layer_idx"], row["token_idx"]) for row in rows] == [
        ("a_1", "3", "1"),
        ("a_1", "4", "1"),
        ("example_2", "3", "1"),
        ("example_2", "4", "1"),
    ]
    for row in rows:
        for column in ("prompt_token_list", "interpretation", "interpretation_weights", "interpretation_prob"):
            assert isinstance(json.loads(row[column]), list)

    before = {path.name: path.read_bytes() for path in workplace.iterdir()}
    assert script.main(arguments(model, "--layers", "-2:", "--tokens", "-1")) == 0
    assert re.search(r"^interpretations\.csv .* is complete: 4 interpretations", capsys.readouterr().out)
    assert {path.name: path.read_bytes() for path in workplace.iterdir()} == before
    assert script.main(arguments(model, "--layers", "0", "--tokens", "last")) == 2
    assert "layers: was -2:, now 0" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in workplace.iterdir()} == before
    assert script.main(arguments(model, "--layers", "0", "--tokens", "last", "--overwrite")) == 0
    assert len(rows_of("interpretations.csv")) == 2


def test_examples_from_a_pipe_are_told_apart_by_what_they_say(model, workplace, capsys, monkeypatch):
    def run(prompt, *more):
        reading, writing = os.pipe()
        with open(writing, "w") as file:
            json.dump({"examples": [{"prompt": prompt, "raw": True}]}, file)
        try:
            options = ("--layers", "1", "--tokens", "last", "--examples", f"/dev/fd/{reading}", *more)
            return script.main(arguments(model, *options))
        finally:
            os.close(reading)

    assert run("one") == 0
    assert run("two") == 2
    assert re.search(r"examples: was \w{16}, now \w{16}", capsys.readouterr().err)
    assert run("one") == 0
    assert "is complete: 1 interpretations" in capsys.readouterr().out
    assert run("two", "--overwrite") == 0
    assert rows_of("interpretations.csv")[0]["prompt"] == "two"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((workplace / "examples.json").read_bytes())))
    assert script.main(arguments(model, "--layers", "1", "--examples", "-", "--overwrite")) == 0
    assert rows_of("interpretations.csv")[0]["prompt"] == "Hi"


def test_other_places_means_and_differences(model, workplace, capsys):
    write_json(workplace / "examples.json", {"examples": [{"prompt": "Hi", "raw": True, "minus": "Hello"}]})
    options = ["--place", "mlp_output", "--tokens", "-1,mean(-2:)", "--layers", "3"]
    assert script.main(arguments(model, *options, "--show")) == 0
    assert "short · mlp output, inserted at layer 2" in capsys.readouterr().out
    assert [(row["current token"], row["token_source"]) for row in rows_of("interpretations.csv")] == [
        ("i − o[4]", "difference, mlp_output"),
        ("mean(0:2) − mean(3:5)", "difference, mlp_output"),
    ]
    assert script.main(arguments(model, "--place", "mlp_output", "--layers", "4", "--overwrite")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: layers: 4 is out of range: there are 4 (0 to 3, or -1 to -4)",
        'error: example_1: tokens: "all" selects 2 of 2 tokens, of the other prompt 5 of 5; '
        "write last, indices that both have, or mean(all)",
    ]


def test_what_is_shown(model, workplace, capsys):
    options = ["--layers", "0", "--tokens", "last"]
    assert script.main(arguments(model, *options, "--no-report")) == 0
    assert not (workplace / "interpretations.html").exists()
    assert script.main(arguments(model, *options)) == 0
    page = (workplace / "interpretations.html").read_text()
    assert "a_1" in page
    (workplace / "interpretations.html").unlink()
    assert script.main(arguments(model, *options, "--report", "new/page.html", "--show", "example_2")) == 0
    assert (workplace / "new" / "page.html").read_text() == page
    assert not (workplace / "interpretations.html").exists()
    shown = capsys.readouterr().out
    assert "example_2" in shown
    assert "a_1" not in shown
    assert shown.rstrip().endswith("(--overwrite starts over)")


def test_embeddings_that_are_not_finite_are_counted(workplace, capsys):
    broken = tiny_model(vocab_size=VOCABULARY)
    letter = tiny_tokenizer().encode("z", add_special_tokens=False)[0]
    broken.get_input_embeddings().weight.data[letter, 3] = float("inf")
    write_tiny_folder(workplace / "broken", model=broken)
    write_json(workplace / "z.json", {"examples": [{"prompt": "az", "raw": True}]})
    options = ["--examples", "z.json", "--layers", "0,4", "--prompt-output-tokens", "0"]
    assert script.main(arguments("broken", *options)) == 0
    rows = rows_of("interpretations.csv")
    failed = [row for row in rows if row["status"] != "ok"]
    assert f"4 interpretations, {len(failed)} of them failed (see the column status) in " in capsys.readouterr().out
    assert len(failed) < 4
    assert [row for row in rows if row["token_idx"] == "1"] == [rows[1], rows[3]]
    assert rows[1] in failed
    assert rows[3] in failed
    for row in failed:
        assert "NaN or infinity" in row["status"]
        for column in ("interpretation", "interpretation_weights", "interpretation_prob"):
            assert row[column] == "null"


def test_several_prompts_and_safe_cells(model, workplace, capsys):
    more = ("--interpretation-prompt", "repeat", "--layers", "0", "--csv-safe", "--output", "new/folder/out.csv")
    assert script.main(arguments(model, *more)) == 0
    assert "get a ' in front" in capsys.readouterr().err
    rows = rows_of("new/folder/out.csv")
    assert [row["repeat_prompt_name"] for row in rows] == (["short"] * 3 + ["repeat"] * 3) * 2
    assert {row["prompt"] for row in rows} == {"Hi", "'-1"}
    assert [row["token_source"] for row in rows[:3]] == ["prompt", "prompt", "output"]


def test_parquet_has_what_the_csv_has(model, workplace, capsys):
    assert script.main(arguments(model, "--layers", "0,2")) == 0
    assert script.main(arguments(model, "--layers", "0,2", "--output", "out.parquet", "--show", "a_1")) == 0
    told = capsys.readouterr().out
    assert "12 interpretations in" in told
    assert "out.parquet (report: out.html)" in told
    read_parquet("out.parquet").to_csv("again.csv")
    assert (workplace / "again.csv").read_bytes() == (workplace / "interpretations.csv").read_bytes()
    page, other = ((workplace / name).read_text() for name in ("out.html", "interpretations.html"))
    assert page == other
    assert script.main(arguments(model, "--layers", "0,2", "--output", "out.parquet")) == 0
    assert "out.parquet (report: out.html) is complete: 12 interpretations" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_stopped_before_it_had_cleared_up(model, workplace, monkeypatch, output):
    given = arguments(model, "--layers", "1", "--output", output, "--no-report")
    with monkeypatch.context() as patched:
        patched.setattr(csv_writer, "remove_shards", lambda path: shards_folder(path).mkdir(exist_ok=True))
        patched.setattr(parquet_writer, "remove_shards", lambda path: shards_folder(path).mkdir(exist_ok=True))
        assert script.main(given) == 0
    assert shards_folder(workplace / output).exists()
    (workplace / f"{output}.progress").touch()
    before = (workplace / output).read_bytes()
    manifest = read_manifest(workplace / output)
    with open_output(workplace / output, manifest, Found(manifest, manifest.complete)):
        clear_leftovers(workplace / output)  # somebody writes there
        assert shards_folder(workplace / output).exists()
    assert script.main(given) == 0
    assert sorted(path.name for path in workplace.glob("out.*")) == [output, f"{output}.manifest.json"]
    assert (workplace / output).read_bytes() == before


def test_several_insert_layers_and_a_strength_for_each_placeholder(model, workplace, capsys):
    options = ["--insert-layer", "2,0", "--replacing-mode", "norm_matched", "--overlay-strength", "1,0.5"]
    command = arguments(model, "--layers", "0,3", "--tokens", "last", *options)
    assert script.main(command) == 0
    rows = rows_of("interpretations.csv")
    assert [(row["layer_idx"], row["insert_layer"], row["status"]) for row in rows] == 2 * [
        ("0", "0,2", "ok"),
        ("3", "0,2", "ok"),
    ]
    assert script.main(command) == 0
    assert "is complete" in capsys.readouterr().out
    assert script.main(arguments(model, "--layers", "0,3", "--insert-layer", "same")) == 2
    assert "overlay_strength: was [1.0, 0.5], now 1.0" in capsys.readouterr().err


def test_a_plan_needs_no_weights_and_writes_nothing(workplace, capsys):
    bare = write_tiny_folder(workplace / "bare", weights=False)
    before = sorted(workplace.rglob("*"))
    assert script.main(arguments(bare.name, "--plan", "--rate", "0.001", "--devices", "5")) == 0
    told = capsys.readouterr().out
    assert "cells       30; chunks 1" in told  # 5 hidden states of 3 tokens, twice
    assert "time        1.7 hours on 5 devices at 0.001 interpretations/s each" in told
    assert sorted(workplace.rglob("*")) == before


def test_a_plan_with_a_measured_rate(model, workplace, capsys):
    before = sorted(workplace.rglob("*"))
    assert script.main(arguments(model, "--plan", "--rate", "measure", "--layers", "0", "--tokens", "last")) == 0
    told = capsys.readouterr().out
    assert re.search(r"time        0\.\d minutes on 1 device at [\d.e+]+ interpretations/s each", told)
    assert sorted(workplace.rglob("*")) == before
    with pytest.raises(SystemExit):
        script.main(arguments(model, "--rate", "5"))
    assert "--rate and --devices go with --plan" in capsys.readouterr().err


def test_killed_and_interrupted_at_random_moments(model, workplace):
    write_json(workplace / "examples.json", {"examples": [{"prompt": f"Hi {n}", "raw": True} for n in range(4)]})
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    (workplace / "outputs").mkdir()
    command = [sys.executable, CAMPAIGN, SCRIPT, workplace / "outputs", *arguments(model)]
    ended = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert counts == {"killed": 12, "interrupted": 6, "different": 0, "torn": 0, "wrong status": []}


def test_the_embedded_model_thinks_of_the_answer(embedded_folder, workplace):
    """The whole program on a real model."""
    example = {"prompt": "The capital of Japan is", "category": "fact", "raw": True, "answer": "Tokyo"}
    write_json(workplace / "examples.json", {"examples": [example]})
    options = ["--examples", "examples.json", "--layers", "0,24", "--tokens", "last", "--insert-layer", "2"]
    command = [sys.executable, str(SCRIPT), *options, "--max-new-tokens", "4", "--dtype", "float32"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rows = rows_of("interpretations.csv")
    assert [(row["layer_idx"], row["current token"], row["prompt_output"]) for row in rows] == [
        ("0", "Ġis", " Tokyo"),
        ("24", "Ġis", " Tokyo"),
    ]
    assert "Tokyo" in rows[1]["interpretation_text"]
    assert rows[1]["status"] == "ok"
    assert json.loads(rows[1]["interpretation_prob"])[0] > 0.5


def test_a_disk_that_fills_while_the_report_is_written(model, workplace, capsys, monkeypatch):
    def full(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    options = ["--layers", "1", "--tokens", "last"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert script.main(arguments(model, *options)) == 1
        told = capsys.readouterr().err
        reason = "cannot write the report interpretations.html: No space left on device"
        assert f"error: interpretations.csv is complete; {reason}; " in told
        assert "Traceback" not in told
        assert script.main(arguments(model, *options)) == 1  # the table is complete, the report still fails
        assert reason in capsys.readouterr().err
    assert len(rows_of("interpretations.csv")) == 2
    assert not list(workplace.glob("*.tmp"))
    assert script.main(arguments(model, *options)) == 0
    assert Path("interpretations.html").exists()
