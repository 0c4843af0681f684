"""Labels out of a table of vectors, and beside those of others."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from report_records import grid_records
from transformers.interpretation import Interpretations
from transformers.interpretation.report.labels import labels_of, main

TEXTS = ["a: big cat", " : a city\nin Japan ", "cars"]


def vector(index, text, **more):
    fields = {"layer_idx": None, "token_idx": index, "token_source": "vector", "name": "vectors_0:100", "prompt": ""}
    record = replace(grid_records(examples=1, layers=1, tokens=1)[0], **fields)
    good = {"status": "ok", "interpretation": (1, 2), "interpretation_prob": (0.5, 0.5), "repeat_prompt_name": "ask"}
    return replace(record, **good, interpretation_text=text, interpretation_weights=(0.2, 0.4), **more)


def failed(record):
    empty = {"interpretation": (), "interpretation_weights": (), "interpretation_prob": (), "interpretation_text": ""}
    return replace(record, status="the vector has NaN or infinity in torch.float32", **empty)


@pytest.fixture(params=["csv", "parquet"])
def table(request, tmp_path):
    """Of vectors 0, 1, 7 and 8, the last of which has no interpretation."""

    def table(*records):
        path = tmp_path / f"table.{request.param}"
        rows = records or [*map(vector, (0, 1, 7), TEXTS), failed(vector(8, ""))]
        getattr(Interpretations(rows), f"to_{request.param}")(path)
        return path

    return table


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_all_forms_at_once(table, tmp_path, capsys):
    where = {name: tmp_path / name for name in ("labels.csv", "e.jsonl", "delphi")}
    given = ["--csv", where["labels.csv"], "--neuronpedia", where["e.jsonl"], "--delphi", where["delphi"]]
    given += ["--model-id", "gpt2-small", "--source-id", "8-res-jb", "--module", "h.8"]
    assert main([str(word) for word in (table(), *given)]) == 0
    assert capsys.readouterr().out == "3 labels, 1 vectors without an interpretation left out\n"
    texts = {"0": "a: big cat", "1": "a city in Japan", "7": "cars"}
    assert rows_of(where["labels.csv"]) == [["index", "label", "score"], *([*one, "0.3"] for one in texts.items())]
    lines = [json.loads(line) for line in where["e.jsonl"].read_text().splitlines()]
    assert {line["index"]: line["description"] for line in lines} == texts
    assert {line["layer"] for line in lines} == {"8-res-jb"}
    found = {path.name: json.loads(path.read_text()) for path in where["delphi"].iterdir()}
    assert found == {f"h.8_latent{index}.txt": text for index, text in texts.items()}


def test_of_samples_the_most_frequent(table):
    said = ["cat", "a dog", "A  DOG", "cat", "A dog"]
    samples = [vector(3, text, sample=number) for number, text in enumerate(said)]
    path = table(*samples, *(vector(4, "x", sample=number) for number in range(5)))
    assert [(label.index, label.text) for label in labels_of(path)] == [(3, "a dog"), (4, "x")]


def test_several_questions(table, capsys):
    path = table(vector(0, "x", question="What?"), vector(1, "y", question="What?"), vector(0, "z", question="Where?"))
    assert main([str(path), "--csv", str(path.with_name("l.csv"))]) == 2
    assert 'several interpretation prompts or questions: choose with --reading, such as --reading "ask · What?"' in (
        capsys.readouterr().err
    )
    assert not path.with_name("l.csv").exists()
    assert [(label.index, label.text) for label in labels_of(path, "ask · Where?")] == [(0, "z")]
    assert main([str(path), "--csv", str(path.with_name("l.csv")), "--reading", "ask"]) == 2
    assert 'has no interpretations of "ask"' in capsys.readouterr().err


def test_compared_with_those_of_others(table, tmp_path, capsys):
    """Shuffled, no label of three shares a word with another's."""
    others = tmp_path / "others.csv"
    others.write_text("index,label\n0,Dogs and cats\n1,JAPAN and its food\n7,fast cars\n99,nobody's\n")
    assert main([str(table()), "--compare", str(others)]) == 0
    told = capsys.readouterr().out
    assert "it has 3 of these vectors; a word of four letters or more is in both labels of 66.7 %" in told
    others.write_text("index,label\n99,nobody's\n")
    assert main([str(table()), "--compare", str(others)]) == 0
    assert "it has no label of these vectors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to do"),
        (["--neuronpedia", "e.jsonl", "--model-id", "x"], "give --source-id:"),
        (["--delphi", "d"], "give --module:"),
        (["--csv", "table.csv"], "would be written over the table"),
        (["--csv", "o.csv", "--compare", "o.csv"], "would be written over the other labels"),
        (["--compare", "missing.csv"], "cannot read labels missing.csv"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    Interpretations([vector(0, "x")]).to_csv("table.csv")
    (tmp_path / "o.csv").write_text("index,label\n0,x\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["table.csv", *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_of_prompts_has_no_labels(tmp_path, capsys):
    Interpretations(grid_records()).to_csv(tmp_path / "prompts.csv")
    assert main([str(tmp_path / "prompts.csv"), "--csv", str(tmp_path / "l.csv")]) == 2
    assert "has interpretations of prompts; labels are of vectors" in capsys.readouterr().err
