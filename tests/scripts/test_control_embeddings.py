"""The program that changes a model through its explanations: whole, stopped, and refused."""

from __future__ import annotations

import json

import control_embeddings
import pytest
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder

TARGETS = {
    "targets": [
        {"prompt": "Hello", "layer": 3, "text": "xyz"},
        {"prompt": "Hi", "layer": 2, "token": 0, "pattern": "[a-m]"},
        {"prompt": "Bye", "layer": 3, "question": "Polite? {text}"},
    ],
    "references": ["ab cd", "x"],
    "held_out": ["Hullo"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def options(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt = write_json(tmp_path / "short.json", SHORT_PROMPT)
    write_json(tmp_path / "targets.json", TARGETS)
    small = ["--steps", "6", "--samples", "2", "--every", "2", "--insert-layer", "1", "--max-new-tokens", "3"]
    return ["--model", str(model), "--device", "cpu", *small, "--interpretation-prompt", str(prompt)]


def test_the_whole_way(options, tmp_path, capsys):
    assert control_embeddings.main([*options, "--targets", "targets.json", "--output", "whole"]) == 0
    out = capsys.readouterr()
    rows = json.loads((tmp_path / "whole" / "before_after.json").read_text())
    assert [(row["prompt"], row["layer"]) for row in rows] == [("Hello", 3), ("Hi", 2), ("Bye", 3), ("Hullo", 3)]
    assert all(len(row["interpretation"]) == len(row["answer"]) == 2 for row in rows)
    assert "Hello (layer 3)" in out.out and "→" in out.out and "step 0:" in out.err
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "before_after.json"} <= names
    assert "checkpoint.safetensors" not in names


def test_stopped_and_given_again(options, tmp_path, monkeypatch):
    more = ["--targets", "targets.json", "--training", "full", "--layers", "1"]
    assert control_embeddings.main([*options, *more, "--output", "whole"]) == 0

    def stop(step):
        if step.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(control_embeddings, "report", stop)
        assert control_embeddings.main([*options, *more, "--output", "parts"]) == 130
    assert (tmp_path / "parts" / "checkpoint.safetensors").exists()
    assert control_embeddings.main([*options, *more, "--rank", "3", "--output", "parts"]) == 2  # another training
    assert control_embeddings.main([*options, *more, "--output", "parts"]) == 0
    for name in ("layers.safetensors", "before_after.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.mark.parametrize(
    ("targets", "more", "message"),
    [
        ({"targets": []}, [], 'found no list "targets" with an entry'),
        ({"targets": [{"prompt": "Hi", "layer": 2}]}, [], "target 0: needs one of text, pattern, question, has none"),
        ({"targets": [{"prompt": "Hi", "text": "x"}]}, [], "target 0: without layer"),
        ({"targets": [{"prompt": "Hi", "layer": "2", "text": "x"}]}, [], "layer is '2', expected a int"),
        ({"targets": [{"prompt": "Hi", "layer": True, "text": "x"}]}, [], "layer is True, expected a int"),
        ({"targets": [{"prompt": "Hi", "layer": 2, "pattern": "("}]}, [], "'(' is no regular expression"),
        ({"targets": [{"prompt": "Hi", "layer": 2, "question": "Polite?"}]}, [], "has no {text}"),
        ({"targets": [{"prompt": "Hi", "layer": 2, "txt": "x"}]}, [], "unknown keys txt"),
        ({"targets": [{"prompt": "Hi", "layer": 9, "text": "x"}]}, [], "layer 9 is out of range: 1 to 4"),
        (TARGETS | {"references": "x"}, [], "references must be a list of texts"),
        (TARGETS | {"other": 1}, [], "unknown keys other"),
        (TARGETS, ["--layers", "3"], "lie behind hidden state 2"),
        (TARGETS, ["--steps", "0"], "steps is 0: at least 1"),
        (TARGETS, ["--insert-layer", "same"], "insert_layer is same"),
    ],
)
def test_what_cannot_be_done_is_a_line(options, tmp_path, capsys, targets, more, message):
    write_json(tmp_path / "targets.json", targets)
    assert control_embeddings.main([*options, *more, "--targets", "targets.json", "--output", "out"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(message in line for line in lines if line.startswith("error: ")), lines
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(options, capsys):
    assert control_embeddings.main([*options, "--targets", "nowhere.json"]) == 2
    assert "targets nowhere.json: No such file" in capsys.readouterr().err
