"""Labels in the formats of other tools: they survive a round trip, and files of other kinds are not taken for them."""

from __future__ import annotations

import gzip
import json

import pytest
from transformers.interpretation.results.label_files import (
    Label,
    LabelsError,
    csv_writer,
    delphi_writer,
    neuronpedia_writer,
    read_labels,
)

LABELS = [Label(0, 'a "big" cat, or two', 0.25), Label(17, "東京 is a city"), Label(3, "", 1 / 3)]
TEXTS = {label.index: label.text for label in LABELS}
NAMED = {"model": "gemma-2-2b", "source": "12-gemmascope-res-16k", "explainer": "our-model"}


def write(writer):
    with writer as add:
        for label in LABELS:
            add(label)


def test_neuronpedias_lines_have_its_names_and_index_as_text(tmp_path):
    write(neuronpedia_writer(tmp_path / "e.jsonl", **NAMED))
    first = json.loads((tmp_path / "e.jsonl").read_text().splitlines()[0])
    assert first == {
        "modelId": "gemma-2-2b",
        "layer": "12-gemmascope-res-16k",
        "index": "0",
        "description": 'a "big" cat, or two',
        "typeName": None,
        "explanationModelName": "our-model",
    }
    write(neuronpedia_writer(tmp_path / "e.jsonl.gz", **NAMED))
    assert gzip.decompress((tmp_path / "e.jsonl.gz").read_bytes()) == (tmp_path / "e.jsonl").read_bytes()
    write(neuronpedia_writer(tmp_path / "e.json", **NAMED))
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert json.loads((tmp_path / "e.json").read_text()) == lines
    with neuronpedia_writer(tmp_path / "none.json", **NAMED):
        pass
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_delphis_files_are_read_as_delphi_reads_them(tmp_path):
    write(delphi_writer(tmp_path / "explanations", module="model/layers.12"))
    for label in LABELS:  # its loader: json.loads of f"{explanation_dir}/{record.latent}.txt", / written as --
        latent = tmp_path / "explanations" / f"model--layers.12_latent{label.index}.txt"
        assert json.loads(latent.read_text(encoding="utf-8")) == label.text
    with pytest.raises(LabelsError, match="is there already"):
        write(delphi_writer(tmp_path / "explanations", module="x"))


def test_the_csv(tmp_path):
    write(csv_writer(tmp_path / "labels.csv"))
    assert (tmp_path / "labels.csv").read_text() == (
        'index,label,score\n0,"a ""big"" cat, or two",0.25\n17,東京 is a city,\n3,,0.333333\n'
    )


def test_whatever_was_written_is_read(tmp_path):
    for name in ("e.jsonl", "e.jsonl.gz", "e.json"):
        write(neuronpedia_writer(tmp_path / name, **NAMED))
        assert read_labels(tmp_path / name) == TEXTS
    write(delphi_writer(tmp_path / "delphi", module="layers.12"))
    write(csv_writer(tmp_path / "labels.csv"))
    assert read_labels(tmp_path / "delphi") == read_labels(tmp_path / "labels.csv") == TEXTS
    (tmp_path / "old.json").write_text(json.dumps({"explanations": [{"index": 4, "description": "x"}]}))
    assert read_labels(tmp_path / "old.json") == {4: "x"}


def test_an_export_in_parts_and_several_labels_of_one_vector(tmp_path):
    for number, text in enumerate(["first", "second"]):
        line = json.dumps({"index": "5", "description": text, "explanationModelName": "m"})
        (tmp_path / f"batch-{number}.jsonl").write_text(f"{line}\n\n")
    assert read_labels(tmp_path) == {5: "first"}


def test_an_error_half_way_leaves_nothing(tmp_path):
    for writer in (
        csv_writer(tmp_path / "labels.csv"),
        neuronpedia_writer(tmp_path / "e.json", **NAMED),
        delphi_writer(tmp_path / "delphi", module="m"),
    ):
        with pytest.raises(ZeroDivisionError), writer as add:
            add(LABELS[0])
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "index,text\n1,x\n", "expected columns index and label"),
        ("a.csv", "index,label\none,x\n", "a.csv, line 2: found index 'one', expected a whole number"),
        ("a.csv", "index,label\n", "there are none"),
        ("a.jsonl", '{"index": 1, "description": "x"}\n{"index": 2', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: expected an object with index and description"),
        ("a.jsonl", '{"index": 1}\n', "found None, expected a text"),
        ("a.jsonl", '{"index": true, "description": "x"}\n', "found index True"),
        ("a.json", '{"labels": []}', "expected a list of explanations"),
        ("a.jsonl.gz", "not compressed", "cannot read labels"),
        ("a.txt", "x", "expected .csv, .jsonl"),
        ("m_latent1.txt", "x", "expected .csv, .jsonl"),
    ],
)
def test_what_is_no_file_of_labels(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LabelsError, match=message):
        read_labels(tmp_path / name)


def test_a_folder_without_labels_and_one_of_something_else(tmp_path):
    with pytest.raises(LabelsError, match="there are none"):
        read_labels(tmp_path)
    (tmp_path / "m_latent1.txt").write_text("no JSON")
    with pytest.raises(LabelsError, match=r"m_latent1\.txt: not JSON"):
        read_labels(tmp_path)
    with pytest.raises(LabelsError, match=r"cannot read labels .*missing\.csv: No such file"):
        read_labels(tmp_path / "missing.csv")
