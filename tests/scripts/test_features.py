"""From a sparse autoencoder to scored labels, as a user would: train, interpret, export, contexts, scores."""

from __future__ import annotations

import json

import find_contexts
import get_interpretations_from_examples as script
import pytest
import score_labels
import train_sae
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from transformers.interpretation.features.table import read_contexts, read_scores
from transformers.interpretation.report import labels as labels_program

WHERE = ["--dtype", "float32", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def sae(model):
    folder = model.parent / "sae"
    small = ["--layer", "2", "--texts", "1", "--features", "12", "--active", "3", "--steps", "30"]
    assert train_sae.main(["--model", str(model), *WHERE, *small, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def options(model, sae):
    return ["--model", str(model), *WHERE, "--vectors", str(sae), "--corpus", str(sae / "texts.jsonl")]


def test_the_whole_way(model, sae, options, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt = write_json(tmp_path / "short.json", SHORT_PROMPT)
    run = [
        "--model",
        str(model),
        *WHERE,
        "--vectors",
        str(sae),
        "--rows",
        "2:8",
        "--interpretation-prompt",
        str(prompt),
    ]
    assert script.main([*run, "--max-new-tokens", "3", "--output", "features.csv"]) == 0
    assert labels_program.main(["features.csv", "--csv", "labels.csv"]) == 0
    assert score_labels.main([*options, "--labels", "labels.csv", "--output", "scores.csv", "-k", "2"]) == 0
    told = capsys.readouterr().out
    assert "shuffled" in told and "random label" in told and "6 labels" in told
    assert [one.index for one in read_scores(tmp_path / "scores.csv")] == [2, 3, 4, 5, 6, 7]
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert 'id="feature-7"' in (tmp_path / "scores.html").read_text()


def test_contexts_are_of_texts_that_activate(options, sae, tmp_path, capsys):
    output = tmp_path / "contexts.jsonl"
    assert find_contexts.main([*options, "-k", "2", "--rows", "3:7", "--output", str(output)]) == 0
    assert "of 4 vectors have some" in capsys.readouterr().out
    found = read_contexts(output)
    assert list(found) == [3, 4, 5, 6]
    texts = [json.loads(line)["text"] for line in (sae / "texts.jsonl").read_text().splitlines()]
    for contexts in found.values():
        assert len(contexts) <= 2
        assert [one.activation for one in contexts] == sorted((one.activation for one in contexts), reverse=True)
    assert any(found.values()) and texts


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rows", "5:99"], "--rows 5:99: there are 12 vectors"),
        (["--rows", "x"], "--rows x: write A:B"),
        (["--layer", "9"], "layer 9 is out of range: there are 0 to 4"),
        (["--corpus", "nowhere.txt"], "corpus nowhere.txt: No such file"),
        (["--text-column", "body"], "no text in 'body'"),
        (["-k", "0"], "-k is 0"),
        (["--vectors", "nowhere.npy"], "there is no nowhere.npy"),
        (["--labels", "nowhere.csv"], "cannot read labels nowhere.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(options, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("index,label,score\n0,a,\n1,b,\n2,c,\n")
    assert score_labels.main([*options, "--labels", "labels.csv", *more]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ") and message in told
    assert not (tmp_path / "scores.csv").exists()


def test_directions_need_a_layer(model, sae, tmp_path, capsys, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    np.save("directions.npy", np.eye(5, 32, dtype="float32"))
    common = ["--model", str(model), *WHERE, "--vectors", "directions.npy", "--corpus", str(sae / "texts.jsonl")]
    assert find_contexts.main(common) == 2
    assert "no file says which layer's hidden states the vectors are of; give --layer" in capsys.readouterr().err
    assert find_contexts.main([*common, "--layer", "1"]) == 0
    assert len(read_contexts(tmp_path / "contexts.jsonl")) == 5


def test_a_layer_that_no_autoencoder_can_be_of(model, tmp_path, capsys):
    for layer in ("0", "4"):
        asked = ["--model", str(model), *WHERE, "--layer", layer, "--output", str(tmp_path / "sae")]
        assert train_sae.main(asked) == 2
        assert f"layer {layer} is out of range: 1 to 3" in capsys.readouterr().err
    assert not (tmp_path / "sae").exists()
