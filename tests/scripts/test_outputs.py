"""No program overwrites its inputs or a model: each is asked to, by the file's own name and by a link."""

from __future__ import annotations

import benchmark
import dealing
import evaluate_interpretations
import fit_lens
import fit_translator
import get_interpretations_from_examples
import pytest
import sweep_layers
import tune_interpretation_prompt
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder

MODEL = ["--model", "model"]
EXAMPLES, PROMPT = ["--examples", "examples.json"], ["--interpretation-prompt", "prompt.json"]
FACTS = ["--facts", "facts.json"]
PROGRAMS = {
    "interpretations": (get_interpretations_from_examples.main, [*MODEL, *EXAMPLES, *PROMPT, "--output", "out.csv"]),
    "evaluate": (evaluate_interpretations.main, [*MODEL, *FACTS, *PROMPT, "--layers", "1"]),
    "translator": (fit_translator.main, [*MODEL, *FACTS, *PROMPT, "--layers", "1"]),
    "lens": (fit_lens.main, ["tuned", *MODEL, "--layers", "1"]),
    "sweep": (sweep_layers.main, [*MODEL, *EXAMPLES, *PROMPT, "--output", "out.csv"]),
    "tune": (tune_interpretation_prompt.main, [*MODEL, *FACTS]),
}
OVER = [
    ("interpretations", "--report", "model/config.json"),
    ("interpretations", "--report", "prompt.json"),
    ("evaluate", "--output", "model/config.json"),
    ("evaluate", "--figure", "model/model.safetensors"),
    ("evaluate", "--output", "facts.json"),
    ("translator", "--output", "model/model.safetensors"),
    ("translator", "--output", "prompt.json"),
    ("lens", "--output", "model/model.safetensors"),
    ("sweep", "--figure", "out.csv"),
    ("tune", "--output", "model/tokenizer.json"),
    ("tune", "--output", "facts.json"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_folder(tmp_path / "model")
    write_json(tmp_path / "examples.json", {"examples": [{"prompt": "Hi", "raw": True}]})
    write_json(tmp_path / "prompt.json", SHORT_PROMPT)
    write_json(tmp_path / "facts.json", {"facts": []})
    return tmp_path


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(("program", "option", "over"), OVER)
def test_nothing_is_written_over(place, capsys, program, option, over, link):
    if link and (place / over).exists():
        (place / "link").symlink_to(over)
        over = "link"
    before = contents(place)
    main, arguments = PROGRAMS[program]
    assert main([*arguments, option, over]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert contents(place) == before


def test_measurements_of_speed_write_over_nothing_either(place, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "FACTS", place / "facts.json")
    monkeypatch.setattr(dealing, "EXAMPLES", place / "examples.json")
    monkeypatch.setattr(dealing, "measure", lambda: pytest.fail("measured first"))
    monkeypatch.setattr(benchmark, "Process", lambda *_: pytest.fail("measured first"))
    before = contents(place)
    assert benchmark.main(["--json", "facts.json"]) == 2
    assert dealing.main(["--measure", "examples.json"]) == 2
    assert capsys.readouterr().err.count("would be written over") == 2
    assert benchmark.main(["--json", "model"]) == 2
    assert dealing.main(["--measure", "model"]) == 2
    assert capsys.readouterr().err.count("is a folder; name a file") == 2
    assert contents(place) == before


def test_measured_costs_may_lie_in_a_new_folder(place, monkeypatch):
    monkeypatch.setattr(dealing, "measure", lambda: {64: [1.0]})
    assert dealing.main(["--measure", "new/costs.json"]) == 0
    assert (place / "new" / "costs.json").read_text()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
