"""The translator script writes what the evaluation reads."""

from __future__ import annotations

import json

import evaluate_interpretations
import get_interpretations_from_examples
import pytest
import torch
from fit_translator import main
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY
from transformers.interpretation.mapping import training_text as own_text
from transformers.interpretation.mapping import translator
from transformers.interpretation.mapping.affine import AffineMap, MappingError
from transformers.interpretation.mapping.fitted_for import FITTED_FOR, read_fitted_for
from transformers.interpretation.mapping.translator import load_maps, save_maps


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(own_text, "OPENINGS", ("ab", "cd"))
    write_json(tmp_path / "prompt.json", SHORT_PROMPT)
    entities = [{"prompt": name, "kind": name, "half": "held-out"} for name in ("ab", "cd")]
    write_json(tmp_path / "entities.json", {"kinds": {"ab": ["x"], "cd": ["y"]}, "entities": entities})
    return write_tiny_folder(tmp_path, model=tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6))


def test_fit_and_evaluate(folder, capsys):
    maps = folder / "maps.safetensors"
    common = ["--model", str(folder), "--insert-layer", "1", "--interpretation-prompt", str(folder / "prompt.json")]
    short = ["--steps", "2", "--texts", "2", "--dtype", "float32"]
    assert main([*common, *short, "--layers", "2,4", "--output", str(maps)]) == 0
    assert list(load_maps(maps)) == [2, 4]
    assert f"--mapping {maps} --layers 2,4" in capsys.readouterr().out
    evaluation = [*common, "--mapping", str(maps), "--output", str(folder / "evaluation.json")]
    evaluation += ["--measures", "entities", "--entities", str(folder / "entities.json")]
    assert evaluate_interpretations.main([*evaluation, "--layers", "2,4"]) == 0
    assert json.loads((folder / "evaluation.json").read_text())["mapping"] == str(maps)
    assert evaluate_interpretations.main([*evaluation, "--layers", "2,3"]) == 2
    assert "no maps for layers [3]" in capsys.readouterr().err
    other = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6)
    other.lm_head.weight.data = other.lm_head.weight.data.flip(0)
    write_tiny_folder(folder / "other", model=other)
    assert evaluate_interpretations.main([*evaluation, "--layers", "2,4", "--model", str(folder / "other")]) == 2
    assert "maps.safetensors is another model's" in capsys.readouterr().err


@pytest.fixture
def fitted(folder):
    maps = folder / "maps.safetensors"
    options = ["--insert-layer", "1", "--interpretation-prompt", str(folder / "prompt.json"), "--dtype", "float32"]
    short = ["--steps", "1", "--texts", "2", "--layers", "2"]
    assert main(["--model", str(folder), *options, *short, "--output", str(maps)]) == 0
    return maps


def test_what_it_was_fitted_for_is_taken_from_the_file(folder, fitted, capsys):
    arguments = evaluate_interpretations.parse(["--mapping", str(fitted)])
    assert vars(arguments) == vars(arguments) | {
        "interpretation_prompt": str(folder / "prompt.json"),
        "insert_layer": 1,
        "replacing_mode": "normalized",
        "overlay_strength": 1.0,
        "guidance": 0.0,
        "deep_gain": 1.0,
    }
    told = capsys.readouterr().err
    assert f"taken from mapping {fitted}: --interpretation-prompt {folder / 'prompt.json'}, --insert-layer 1" in told
    assert "--guidance 0, --deep-gain 1" in told
    run = get_interpretations_from_examples.parse(["--mapping", str(fitted)])
    assert (run.interpretation_prompts, run.insert_layer, run.guidance) == ([str(folder / "prompt.json")], 1, 0.0)


def test_what_the_options_say_stands_and_is_named_where_it_differs(fitted, capsys):
    given = [
        "--mapping",
        str(fitted),
        "--guidance",
        "0.5",
        "--insert-layer",
        "1",
        "--interpretation-prompt",
        "describe",
    ]
    for program in (evaluate_interpretations, get_interpretations_from_examples):
        arguments = program.parse(given)
        assert (arguments.guidance, arguments.replacing_mode) == (0.5, "normalized")
        told = capsys.readouterr().err
        assert f"mapping {fitted} was fitted for --interpretation-prompt" in told
        assert "not describe; --guidance 0, not 0.5\n" in told
        assert "insert-layer" not in told


def test_maps_that_say_nothing_change_nothing(folder, capsys):
    save_maps({2: AffineMap(torch.eye(4), torch.zeros(4))}, folder / "plain.safetensors")
    with_maps = evaluate_interpretations.parse(["--mapping", str(folder / "plain.safetensors")])
    without = evaluate_interpretations.parse([])
    assert {**vars(with_maps), "mapping": None} == vars(without)
    evaluate_interpretations.parse(["--mapping", str(folder / "nowhere.safetensors")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("said", ["[1]", "no json", '{"temperature": 2}'])
def test_what_is_not_understood_is_an_error(folder, said):
    path = folder / "maps.safetensors"
    save_maps({2: AffineMap(torch.eye(4), torch.zeros(4))}, path, {FITTED_FOR: said})
    with pytest.raises(MappingError, match="fitted for"):
        read_fitted_for(path)


def test_texts_begin_with_prompts_of_the_tuning_half_alone(folder, monkeypatch):
    halves = {"tuning": "abc", "held-out": "abd"}
    facts = [
        {"relation": "r", "prompt": prompt, "paraphrase": "p", "answer": "a", "half": half}
        for half, prompt in halves.items()
    ]
    write_json(folder / "facts.json", {"facts": facts})
    seen = []
    sample = translator.sample_own_text
    monkeypatch.setattr(translator, "sample_own_text", lambda *given: seen.extend(given[-1].openings) or sample(*given))
    options = ["--insert-layer", "1", "--interpretation-prompt", str(folder / "prompt.json"), "--steps", "1"]
    options += ["--facts", str(folder / "facts.json"), "--texts", "1", "--output", str(folder / "maps.safetensors")]
    assert main(["--model", str(folder), "--layers", "2", *options]) == 0
    assert seen == ["ab", "cd", "abc"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "at least one step"),
        (["--texts", "0"], "at least one opening, text"),
        (["--insert-layer", "3"], "too deep"),
        (["--layers", "6"], "out of range"),
    ],
)
def test_what_cannot_be_is_refused(folder, capsys, more, message):
    maps = folder / "maps.safetensors"
    assert main(["--model", str(folder), "--layers", "2", "--output", str(maps), "--insert-layer", "1", *more]) == 2
    assert message in capsys.readouterr().err
    assert not maps.exists()


@pytest.mark.parametrize("output", ["facts.json", "prompt.json"])
def test_no_output_takes_the_place_of_an_input(folder, capsys, output):
    write_json(folder / "facts.json", {"facts": []})
    before = (folder / output).read_bytes()
    options = ["--interpretation-prompt", str(folder / "prompt.json"), "--facts", str(folder / "facts.json")]
    assert main(["--model", str(folder), "--layers", "2", *options, "--output", str(folder / output)]) == 2
    assert "the maps" in capsys.readouterr().err
    assert (folder / output).read_bytes() == before
