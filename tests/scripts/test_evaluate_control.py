"""The program that edits facts and measures what the model answers afterwards."""

from __future__ import annotations

import json

import evaluate_control
import pytest
from tiny_folder import write_json, write_tiny_folder

FACTS = [
    {"relation": relation, "prompt": f"{relation}{n} is", "paraphrase": f"what is {relation}{n}?", "answer": answer}
    for relation, answers in {"a": ("one", "two"), "b": ("three", "four")}.items()
    for n, answer in enumerate(answers)
]


@pytest.fixture
def options(tmp_path, monkeypatch):
    from transformers.interpretation.control import editing
    from transformers.interpretation.measures import recovery

    monkeypatch.chdir(tmp_path)
    for module in (editing, recovery):  # a random model knows nothing
        monkeypatch.setattr(module, "known_facts", lambda model, tokenizer, facts: list(facts))
    facts = [fact | {"half": half} for half in ("tuning", "held-out") for fact in FACTS]
    write_json(tmp_path / "facts.json", {"facts": facts})
    model = write_tiny_folder(tmp_path / "model")
    return ["--model", str(model), "--device", "cpu", "--facts", "facts.json", "--steps", "2", "--edits", "2"]


def test_both_ways_are_measured(options, tmp_path, capsys):
    assert evaluate_control.main([*options, "--layer", "3", "--layers", "1:3"]) == 0
    content = json.loads((tmp_path / "control.json").read_text())
    assert content["edits"] == [
        {"prompt": "a0 is", "was": "one", "to": "two"},
        {"prompt": "b0 is", "was": "three", "to": "four"},
    ]
    assert set(content["outcomes"]) == {"explanation", "fine-tuning"}
    assert content["means"]["explanation"]["paraphrase"]["n"] == 2
    assert "new answer to the prompt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--edits", "0"], "--edits 0: at least one"),
        (["--layer", "9"], "layer 9 is out of range: 1 to 4"),
        (["--layers", "7"], "7 is out of range"),
        (["--facts", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_a_line(options, capsys, more, message):
    assert evaluate_control.main([*options, "--layer", "3", "--layers", "1:3", *more]) == 2
    assert any(message in line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
