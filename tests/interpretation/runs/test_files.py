"""Files that a command would write over another one."""

from __future__ import annotations

import os

import pytest
from transformers.interpretation.runs.csv_writer import check_output, files_of
from transformers.interpretation.runs.files import check_apart, check_writable
from transformers.interpretation.runs.manifest import OutputError


@pytest.fixture(autouse=True)
def _within(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page",
    [
        "out.csv",
        "./out.csv",
        "folder/../out.csv",
        "OUT.csv",
        "out.csv.manifest.json",
        "out.csv.progress",
        "out.csv.shards",
        "out.csv.shards/page.html",
        "link.html",
        "linked/out.csv",
        "hard.html",
    ],
)
def test_outputs_that_are_one_file(page, tmp_path):
    output = tmp_path / "out.csv"
    output.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.html").symlink_to("out.csv")
    (tmp_path / "linked").symlink_to(".")
    os.link(output, tmp_path / "hard.html")
    with pytest.raises(OutputError, match=r"the report .* would be written over the table"):
        check_apart(files_of(output) | {"the report": tmp_path / page}, {})
    check_apart(files_of(output) | {"the report": tmp_path / "out.html"}, {})


def test_names_that_differ_in_case_or_form_are_one_file_somewhere(tmp_path):
    with pytest.raises(OutputError, match=r"the report .* would be written over the table"):
        check_apart({"the table": tmp_path / "\u00c9t\u00e9.csv", "the report": tmp_path / "e\u0301te\u0301.csv"}, {})


@pytest.mark.parametrize("output", ["examples.json", "link.json", "hard.json", "examples"])
def test_an_input_is_no_output(output, tmp_path):
    """ "examples" would be written by way of examples.tmp."""
    (tmp_path / "examples.json").touch()
    (tmp_path / "examples.tmp").touch()
    (tmp_path / "link.json").symlink_to("examples.json")
    os.link(tmp_path / "examples.json", tmp_path / "hard.json")
    inputs = {
        "the examples": tmp_path / ("examples.tmp" if output == "examples" else "examples.json"),
        "the maps": None,
    }
    with pytest.raises(OutputError, match=r"the page .* would be written over the examples"):
        check_apart({"the page": tmp_path / output}, inputs)
    check_apart({"the page": tmp_path / "other"}, inputs)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "x" * 240 + ".csv",
            "with .manifest.json.tmp, which is written beside it, it has 262 bytes, and 255 is",
        ),
        ("ü" * 120 + ".csv", "too long: with .manifest.json.tmp, which is written beside it, it has 262 bytes"),
        ("x" * 300 + ".csv", "File name too long"),
        ("x" * 300 + "/out.csv", "File name too long"),
        ("a\0b.csv", "null byte"),
        ("\udcff.csv", r"cannot write .*\\udcff.csv: its name is not UTF-8"),
    ],
)
def test_names_that_no_file_can_have(name, told, tmp_path):
    with pytest.raises(OutputError, match=told):
        check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_as_long_as_what_is_written_beside_it_allows(tmp_path):
    check_output(tmp_path / ("x" * 233 + ".csv"))
    with pytest.raises(OutputError, match="256 bytes"):
        check_output(tmp_path / ("x" * 234 + ".csv"))
    check_writable(tmp_path / ("x" * 246 + ".html"))
