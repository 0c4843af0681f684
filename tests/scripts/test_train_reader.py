"""The program that trains a reader: whole, stopped, used, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import get_interpretations_from_examples as script
import numpy as np
import pytest
import torch
import train_reader
from safetensors import safe_open
from tiny_folder import SHORT_PROMPT, write_json
from transformers.interpretation import read_csv
from transformers.interpretation.readers.formats import find_reader

ROWS = ["Hello,cat,training", "Hi,dog,training", "Bye,a bird,validation", "Well,fish,test", "Yes,cow,training"]


@pytest.fixture
def options(model, workplace):
    Path("topics.csv").write_text("\n".join(["prompt,label,split", *ROWS]) + "\n")
    small = ["--steps", "6", "--every", "2", "--batch-size", "2", "--rank", "3"]
    return ["--model", str(model), "--device", "cpu", "--dtype", "float32", *small]


def trained(options, *more):
    return train_reader.main([*options, *more])


def contents(folder):
    """Headers and bytes of tensors; the order within a header is safetensors' own."""
    found = {}
    for path in sorted(folder.iterdir()):
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
            found[path.name] = file.metadata(), tensors
    assert len(found) == 2
    return found


def test_the_whole_way(options, model, capsys):
    assert trained(options, "--data", "topics.csv", "--layer", "2", "--output", "new/reader.safetensors") == 0
    told = capsys.readouterr()
    assert "new/reader.safetensors in " in told.out and "3 labelled vectors, 1 held out; their labels" in told.out
    assert "step 6: " in told.err and "nats per token of held-out labels" in told.err
    assert sorted(path.name for path in Path("new").iterdir()) == ["mean-vectors.safetensors", "reader.safetensors"]
    use = ["--examples", "examples.json", "--tokens", "last", "--max-new-tokens", "3", "--output", "out.csv"]
    given = [*options[:6], "--reader", "new/reader.safetensors"]
    assert script.main([*given, *use]) == 0
    assert "SelfIE adapter reader.safetensors: scalar affine, hidden size 32, trained on" in capsys.readouterr().err
    assert {(one.layer_idx, one.insert_layer) for one in read_csv("out.csv")} == {(2, 0)}


def test_stopped_and_given_again(options, monkeypatch, capsys):
    more = ["--data", "topics.csv", "--layer", "2", "--kind", "scalar_affine_plus_low_rank", "--output"]
    assert trained(options, *more, "whole/reader.safetensors") == 0

    def stop(bar, step):
        if step.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_reader, "report", stop)
        assert trained(options, *more, "parts/reader.safetensors") == 130
    assert [path.name for path in Path("parts").iterdir()] == ["reader.safetensors.checkpoint"]
    assert trained(options, *more, "parts/reader.safetensors", "--seed", "1") == 2  # another training
    assert "cannot be resumed: it is of other data or settings; remove it" in capsys.readouterr().err
    assert trained(options, *more, "parts/reader.safetensors") == 0
    assert contents(Path("whole")) == contents(Path("parts"))


def test_labelled_vectors_of_a_layer_or_of_none(options, model):
    vectors = np.random.default_rng(0).standard_normal((6, 32)).round(3)
    lines = [json.dumps({"vector": list(row), "label": f"label {n}"}) for n, row in enumerate(vectors)]
    Path("vectors.jsonl").write_text("\n".join(lines))
    prompt = write_json(Path("own.json"), SHORT_PROMPT | {"stop": "."})
    more = [
        "--data",
        "vectors.jsonl",
        "--held-out",
        "0.5",
        "--kind",
        "scale_only",
        "--interpretation-prompt",
        str(prompt),
    ]
    assert trained(options, *more, "--output", "plain.safetensors") == 0
    reader = find_reader("plain.safetensors")
    assert (reader.layer, reader.projection.mean, reader.own.prompt.text) == (None, None, SHORT_PROMPT["text"])
    assert trained(options, *more, "--layer", "3", "--subtract-mean", "--output", "mean.safetensors") == 0
    reader = find_reader("mean.safetensors")
    assert reader.layer == 3 and reader.projection.mean.norm() > 0
    with safe_open("mean.safetensors", "pt") as file:
        assert json.loads(file.metadata()["llm_interpret"])["mean"] is True


def test_raw_prompts_are_read_as_they_are(options, model):
    for name, more in (("turn", []), ("raw", ["--raw"])):
        given = ["--data", "topics.csv", "--layer", "2", "--output", f"{name}/reader.safetensors"]
        assert trained(options, *given, *more) == 0
    means = [find_reader(f"{name}/reader.safetensors").projection.mean for name in ("turn", "raw")]
    assert not torch.allclose(*means)


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (None, ["--data", "none.csv"], "cannot read none.csv: No such file"),
        (None, ["--data", "old.pt"], "old.pt is pickled, and could run code"),
        (["prompt,labels", "Hi,x"], [], "topics.csv: found columns prompt, labels; expected label, and either"),
        (["prompt,label", "Hi,x", "Bye,"], [], "topics.csv, row 2: found label '', expected a text that is not empty"),
        (["vector,label", '"[1, 2]",x', '"[1, 3]",y'], [], "vectors of 2 numbers, expected the model's hidden size 32"),
        (["prompt,label,split", "Hi,x,training"], [], "0 of 1 labelled vectors are held out"),
        (None, ["--layer", "9"], "layer 9 is out of range"),
        (None, ["--layer", "0"], "found a mean of layer 0"),
        (None, ["--kind", "full_rank"], "kind is 'full_rank': use one of scale_only, scalar_affine, "),
        (None, ["--steps", "0"], "steps is 0: at least 1"),
        (None, ["--held-out", "0"], None),  # there is a column split
        (["prompt,label", "Hi,x", "Bye,y"], ["--held-out", "0"], "the share that is held out is 0.0"),
        (None, ["--interpretation-prompt", "sumarize"], "did you mean 'summarize'"),
        (None, ["--interpretation-prompt", "ask"], "it has the field {question}"),
        (None, ["--output", "reader.bin"], "the output reader.bin must be named .safetensors"),
        (None, ["--output", "topics.csv"], "would be written over the data"),
        (None, ["--model", "./nowhere"], "model ./nowhere: there is no such folder"),
    ],
)
def test_bad_input_is_one_line(options, capsys, rows, more, message):
    if rows is not None:
        Path("topics.csv").write_text("\n".join(rows) + "\n")
    Path("old.pt").write_bytes(b"")
    before = sorted(Path().rglob("*"))
    status = trained(options, "--data", "topics.csv", "--layer", "2", *more)
    if message is None:
        assert status == 0
        return
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], lines
    assert sorted(Path().rglob("*")) == before


def test_prompts_need_a_layer(options, capsys):
    assert trained(options, "--data", "topics.csv") == 2
    assert "prompts are read at a layer: give --layer" in capsys.readouterr().err
