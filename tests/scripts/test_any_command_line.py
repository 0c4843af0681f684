"""Whatever options are combined: a table that can be read, or lines that say why not and nothing touched."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import tempfile
import warnings
from pathlib import Path

import get_interpretations_from_examples as script
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from transformers.interpretation import AffineMap, read_csv, read_parquet
from transformers.interpretation.translator import save_maps

WRONG_NUMBERS = ["-1", "0", "1e9", "nan", "", "x", "99999999999999999999"]
WRONG_PATHS = ["", ".", "/", "examples.json", "\udcff.csv", "x" * 250 + ".csv", "socket"]
INDICES = ["all", "last", "0", "-1", "0,2", "1:", "::2", "mean(0:2)"]
WRONG_INDICES = ["9", "5:5", "::0", "", ",", "mean(all", "a", "1e3", "-99999999999999", "\udcff"]
FLAGS = [
    *("--csv-safe", "--names-by-category", "--overwrite", "--no-report", "--plan", "--trust-remote-code", "--show"),
    *("--unknown", "word"),
]
OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "--model": (["model"], ["", "./nowhere", "empty", "examples.json", "a/b/c", "\udcff"]),
    "--examples": (
        ["examples.json", "chat.json"],
        [*WRONG_PATHS, "nowhere/x.json", "broken.json", "short.json", "empty"],
    ),
    "--output": (["out.csv", "new/out.CSV", "out.parquet", "link.csv"], [*WRONG_PATHS, "out.txt", "theirs.csv"]),
    "--report": (["page.html", "new/page"], [*WRONG_PATHS, "out.csv", "out.csv.manifest.json", "theirs.csv"]),
    "--vectors": (["vectors.npy"], [*WRONG_PATHS, "maps.safetensors", "model", "empty", "narrow.npy"]),
    "--tensor": ([], ["", "x"]),
    "--vector-column": ([], ["", "x"]),
    "--names": (["names.txt"], [*WRONG_PATHS, "broken.json"]),
    "--rows": (["0:2", "1", ":"], ["", "5:", "-1", "0:2:1", "x", "9" * 40]),
    "--strength": (["2", "auto", "-0.5"], ["nan", "inf", "", "x", "AUTO"]),
    "--layers": ([*INDICES[2:], "all"], [*WRONG_INDICES, "last", "mean(0:2)"]),
    "--tokens": (INDICES, WRONG_INDICES),
    "--place": (["residual", "mlp_output"], ["", "mlp"]),
    "--interpretation-prompt": (["short.json", "describe", "ask"], ["", "descrbie", "empty", "broken.json", "\udcff"]),
    "--question": (["What is it?"], ["", " "]),
    "--insert-layer": (["0", "1,2", "same"], [*WRONG_NUMBERS, "1,", "4", "1,1"]),
    "--insert-place": (["residual", "attention_output", "residual_mid", "final_norm"], ["", "mlp", "FINAL_NORM"]),
    "--replacing-mode": (["addition", "norm_matched"], ["", "blend"]),
    "--overlay-strength": (["0.5", "1,0.5"], ["inf", "nan", "-1", "", "1,1,1", "x"]),
    "--guidance": (["0", "1.5"], ["-1", "nan", "inf", "x"]),
    "--plausibility": (["0", "0.5", "1"], ["-1", "2", "nan"]),
    "--deep-gain": (["1", "4", "0.5"], ["0", "-1", "nan", "inf", "x"]),
    "--samples": (["1", "3"], ["-1", "1.5", "x", "99999999999999999999"]),
    "--temperature": (["1", "0.5"], ["0", "-1", "nan", "inf", "x"]),
    "--top-p": (["1", "0.9"], ["0", "1.1", "nan", "x"]),
    "--seed": (["0", "99999999999999999999"], ["x", "1.5"]),
    "--source-model": (["model"], ["./nowhere", "", "empty"]),
    "--reader": ([], ["", "./nowhere", "empty", "model", "maps.safetensors", "examples.json"]),
    "--reader-adapter": ([], ["", "./nowhere", "empty", "model"]),
    "--mapping": (["maps.safetensors"], [*WRONG_PATHS, "narrow.safetensors"]),
    "--max-new-tokens": (["1", "3"], [*WRONG_NUMBERS, "500"]),
    "--prompt-output-tokens": (["0", "2"], ["-1", "x", "500", "99999999999999999999"]),
    "--batch-size": (["1", "7"], ["0", "-1", "x"]),
    "--dtype": (["float32", "bfloat16"], ["int8", ""]),
    "--device": (["cpu", "auto"], ["", "meta", "nothing", "cpu:x", "cuda:99999999999999999999", "cuda:7", "xla"]),
    "--device-map": (["auto"], ["", "nowhere.json", "broken.json", "examples.json", "all"]),
    "--max-memory": ([], ["cpu=1GB", "x", "", "cpu=-1"]),
    "--offload-folder": ([], ["", "examples.json", "new"]),
    "--show": (["example_1"], ["nobody", "", "\udcff"]),
    "--rate": (["12", "1TFLOP/s", "measure"], ["0", "-1", "nan", "x"]),
    "--devices": (["2"], ["0", "-1", "x"]),
}


OF_VECTORS = ("--vectors", "--tensor", "--vector-column", "--names", "--rows", "--strength")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """What lies in the folder of every run."""
    folder = tmp_path_factory.mktemp("template")
    examples = [{"prompt": "Hi", "raw": True}, {"prompt": "-1", "raw": True, "answer": "x"}]
    write_json(folder / "examples.json", {"examples": examples})
    write_json(folder / "chat.json", {"examples": [{"prompt": "=Hi", "minus": "Yes, no"}]})
    write_json(folder / "short.json", SHORT_PROMPT)
    (folder / "broken.json").write_text('{"examples": [')
    (folder / "theirs.csv").write_text("a,b\n1,2\n")
    (folder / "empty").mkdir()
    for name, size in (("vectors", 32), ("narrow", 31)):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=(3, size)))
    (folder / "names.txt").write_text("a\n\n=c\n")
    (folder / "link.csv").symlink_to("linked.csv")
    for name, size in (("maps", 32), ("narrow", 31)):
        save_maps(
            {layer: AffineMap(torch.eye(size), torch.zeros(size)) for layer in (0, 2)}, folder / f"{name}.safetensors"
        )
    write_tiny_folder(folder / "model")
    return folder


@st.composite
def command_lines(draw) -> list[str]:
    """Few options, most of them right, in any order; now and then one twice."""
    chosen = dict.fromkeys(["--examples", "--interpretation-prompt", "--max-new-tokens", "--dtype", "--device"])
    given = {"--model": "model", "--output": "out.csv"} | {name: OPTIONS[name][0][0] for name in chosen}
    words = []
    for name in draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=5, unique=True)):
        right, wrong = OPTIONS[name]
        given[name] = draw(st.sampled_from(right * 3 + wrong if draw(st.booleans()) or not right else right))
    if draw(st.booleans()) and {*OF_VECTORS} & {*given}:
        given = {"--vectors": "vectors.npy"} | {name: value for name, value in given.items() if name != "--examples"}
    for name, value in given.items():
        words += [f"{name}={value}"] if draw(st.booleans()) else [name, value]
    return words + draw(st.lists(st.sampled_from(FLAGS), max_size=2))


def state_of(folder: Path) -> dict[str, bytes | str | bool]:
    """Everything in a folder: files with what is in them, links with where they point."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.is_file() and path.read_bytes()  # False: a folder
        for path in folder.rglob("*")
    }


def status_of(words: list[str]) -> tuple[int, str]:
    """Exit status and stderr. What is raised is a traceback to a user, so it is raised here."""
    told = io.StringIO()
    shown = warnings.showwarning
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            return script.main(words), told.getvalue()
    except SystemExit as end:
        return int(end.code or 0), told.getvalue()
    finally:
        warnings.showwarning = shown


def check(words: list[str], template: Path) -> None:
    """Run the program in a folder of its own, twice."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(template, Path(place) / "work", symlinks=True)
        os.chdir(folder)
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind("socket")  # a file that can neither be read nor written
            there = state_of(folder)
            status, told = status_of(words)
            if status == 2:
                assert any("error: " in line for line in told.splitlines()), told
                assert state_of(folder) == there
                return
            assert status == 0, told
            if "--plan" in words:
                assert state_of(folder) == there
                return
            check_outputs(words, there, state_of(folder))
            written = state_of(folder)
            again, told = status_of([word for word in words if word != "--overwrite"])
            assert again == 0, told
            assert state_of(folder) == written
        finally:
            os.chdir(before)


def check_outputs(words: list[str], before: dict, after: dict) -> None:
    """One table that its reader reads, its manifest, and the report if it is wanted; nothing else has changed."""
    new = {name for name in after if after[name] != before.get(name)} - {"new"}
    tables = [name for name in new if name.lower().endswith((".csv", ".parquet"))]
    assert len(tables) == 1, new
    records = (read_parquet if tables[0].endswith(".parquet") else read_csv)(Path(tables[0]))
    assert len(records) > 0
    assert {record.status for record in records} == {"ok"}
    assert len(new) == 2 + ("--no-report" not in words), new
    assert not set(before) - set(after)


def test_every_option_of_the_program_is_among_these(capsys):
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    told = set(re.findall(r"(?m)^  (--[a-z-]+)", capsys.readouterr().out))
    assert told == {*OPTIONS, *FLAGS} - {"--unknown", "word"}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(words=command_lines())
def test_a_table_or_lines_and_nothing_touched(template, words):
    check(words, template)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_each_wrong_value_alone(template, name):
    """What the random combinations may miss."""
    for value in OPTIONS[name][1]:
        plan = ["--plan"] if name in ("--rate", "--devices") else []
        source = "--vectors=vectors.npy" if name in OF_VECTORS else "--examples=examples.json"
        words = ["--model=model", source, "--output=out.csv", "--max-new-tokens=1", "--layers=0"]
        check([*words, f"{name}={value}", *plan], template)
