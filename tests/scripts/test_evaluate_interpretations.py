"""The evaluation script end to end on a tiny model."""

from __future__ import annotations

import json

import pytest
from evaluate_interpretations import main
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.results.calibration import Calibration
from transformers.interpretation.runs.source_activations import continue_greedily

TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model of six layers, so that layer 1 is the deepest for insertion, and facts that it knows."""
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6)
    write_tiny_folder(folder, model=model)
    prompts = [f"{first}{second}" for first in "pqrst" for second in "aeiou"]
    facts = []
    for number, prompt in enumerate(prompts):
        text = TOKENIZER.decode(continue_greedily(model, TOKENIZER.encode(prompt), 8), skip_special_tokens=True)
        answer = text.strip() if number else "never said"
        half = ("tuning", "held-out")[number % 2]
        facts.append(
            {"relation": "rs"[number % 3 == 0], "prompt": prompt, "paraphrase": prompt, "answer": answer, "half": half}
        )
    write_json(folder / "facts.json", {"facts": [fact for fact in facts if fact["answer"] not in ("", fact["prompt"])]})
    kinds = {"a": ["one"], "b": ["two"]}
    halves = [("a", "tuning"), ("b", "tuning"), ("a", "held-out"), ("b", "held-out")]
    entities = [{"prompt": f"{kind}{half}", "kind": kind, "half": half} for kind, half in halves]
    write_json(folder / "entities.json", {"kinds": kinds, "entities": entities})
    write_json(folder / "prompt.json", SHORT_PROMPT)
    return folder


def arguments(folder, output, *more):
    options = {"--model": folder, "--facts": folder / "facts.json", "--interpretation-prompt": folder / "prompt.json"}
    options |= {
        "--entities": folder / "entities.json",
        "--output": output,
        "--layers": "0,2,4,6",
        "--max-new-tokens": 3,
        "--insert-layer": 1,
        "--dtype": "float32",
    }
    return [str(word) for pair in options.items() for word in pair] + list(more)


def test_the_round_trip_stands_beside_relevancy(folder, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    assert main(arguments(folder, output, "--measures", "roundtrip", "--half", "tuning")) == 0
    found = json.loads(output.read_text())["round trip"]
    assert list(found) == ["relevancy", "round trip", "both"]
    for score in found.values():
        assert list(score["precision"]) == ["1.0", "0.5", "0.25", "0.1"]
        assert score["precision"]["1.0"] == found["relevancy"]["precision"]["1.0"]
    assert "ROC area" in capsys.readouterr().out


def test_echoes_of_the_prompt_are_told(folder, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    write_json(tmp_path / "examples.json", {"examples": [{"prompt": "pa", "raw": True}]})
    write_json(tmp_path / "prompt.json", {"text": "so wide: _", "placeholder": "_"})
    more = ["--measures", "echoes", "--examples", str(tmp_path / "examples.json")]
    more += ["--interpretation-prompt", str(tmp_path / "prompt.json")]
    assert main(arguments(folder, output, *more)) == 0
    echoes = json.loads(output.read_text())["echoes"]
    assert echoes["interpretations"] == 4 * len(TOKENIZER.encode("pa"))
    assert set(echoes["words"]) == {"so", "wide"}
    assert "the interpretation prompt's own words in" in capsys.readouterr().out


def test_questions_about_subjects(folder, tmp_path, capsys):
    output, given = tmp_path / "evaluation.json", tmp_path / "facts.json"
    more = ["--measures", "attributes", "steps", "--half", "tuning"]
    assert main(arguments(folder, output, *more)) == 0
    told = capsys.readouterr().err
    assert "no attributes of subjects: no fact is of a relation" in told and "no two steps: 0 two-step" in told
    model, facts = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6), []
    for subject in "bcdfghklm":
        ids = TOKENIZER.encode(f"so {subject} is")
        answer = TOKENIZER.decode(continue_greedily(model, ids, 8), skip_special_tokens=True).strip()
        facts.append({"relation": "r", "prompt": f"so {subject} is", "paraphrase": "p", "answer": answer})
    facts = [{**fact, "half": "tuning"} for fact in facts if fact["answer"]]
    assert len(facts) > 3
    write_json(given, {"facts": facts})
    assert main([*arguments(folder, output, *more), "--facts", str(given)]) == 0
    layers = json.loads(output.read_text())["attributes of subjects"]["layers"]
    assert list(layers) == ["0", "2", "4"]  # hidden state 6 is the input of no layer
    assert all(list(row) == ["net", "named", "by other", "linear probe"] for row in layers.values())
    assert "attributes of subjects" in capsys.readouterr().out


def test_a_table_a_json_file_and_a_figure(folder, tmp_path, capsys):
    output = tmp_path / "new" / "evaluation.json"
    assert main(arguments(folder, output, "--half", "tuning")) == 0
    measured = json.loads(output.read_text())
    recovery = measured["answer recovery"]
    assert list(recovery["layers"]) == ["0", "2", "4", "6"]
    assert list(recovery["any layer"]) == ["≤ 50%", "≤ 65%", "≤ 80%"]
    assert 0 < measured["known facts"] < measured["facts"]
    for shares in recovery["layers"].values():
        for share in shares.values():
            assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
            assert share["n"] == measured["known facts"]
    assert recovery["layers"]["6"]["logit lens top-1"]["value"] >= 0
    assert "own layer" not in recovery["layers"]["6"]
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "answer recovery, tuning half, short at layer 1" in out
    assert "logit lens top-10" in out
    for title in ("next token, identity prompt", "entity description", "faithfulness of relevancy"):
        assert list(measured[title]["layers"]) == ["0", "2", "4", "6"]
        assert title in out
    trust = measured["trust"]
    # On the half that it was calibrated on, every step holds what it promises.
    assert [step["right"]["value"] for step in trust["steps"]] == pytest.approx(trust["calibration"]["shares"])
    assert trust["interpretations"]["here"] == 4 * measured["known facts"]
    named = [shares["net"]["value"] for shares in recovery["layers"].values()]
    assert trust["precision by coverage"]["100%"]["value"] <= sum(named) / len(named) + 1e-9
    assert "trust, tuning half, short at layer 1 (area under the ROC curve" in out
    assert output.with_stem("evaluation_trust").with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert Calibration.read(output).shares == tuple(trust["calibration"]["shares"])
    last = measured["next token, identity prompt"]["layers"]["6"]
    assert last["surprisal"]["value"] > 0
    assert last["precision"]["n"] == measured["facts"]


def test_every_measure_at_the_layer_that_a_state_comes_from(folder, tmp_path):
    """As at that layer alone."""
    measures = ["--measures", "recovery", "identity", "entities", "faithfulness"]
    outputs = []
    for number, where in enumerate((["same", "--layers", "1"], ["1", "--layers", "1"])):
        outputs.append(tmp_path / f"{number}.json")
        assert main(arguments(folder, outputs[-1], *measures, "--insert-layer", *where)) == 0
    same, there = (json.loads(output.read_text()) for output in outputs)
    for title in ("answer recovery", "next token, identity prompt", "entity description", "faithfulness of relevancy"):
        assert same[title] == there[title]


def test_trust_is_calibrated_on_the_tuning_half_alone(folder, tmp_path, capsys):
    halves = {}
    for half in ("tuning", "held-out"):
        output = tmp_path / f"{half}.json"
        assert main(arguments(folder, output, "--measures", "trust", "--half", half)) == 0
        halves[half] = json.loads(output.read_text())
    tuning, held_out = (measured["trust"] for measured in halves.values())
    assert held_out["calibration"] == tuning["calibration"]
    assert held_out["interpretations"]["tuning"] == tuning["interpretations"]["here"]
    assert held_out["interpretations"]["here"] == 4 * halves["held-out"]["known facts"]
    content = json.loads((folder / "facts.json").read_text())
    content["facts"] = [fact for fact in content["facts"] if fact["half"] == "held-out"]
    write_json(tmp_path / "facts.json", content)
    output = tmp_path / "without.json"
    assert main([*arguments(folder, output, "--measures", "trust"), "--facts", str(tmp_path / "facts.json")]) == 0
    assert "trust" not in json.loads(output.read_text())
    assert "no trust" in capsys.readouterr().err


def test_privileged_information_beside_the_text_and_shuffled_vectors(folder, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    phrases = {"city": "lives in {}", "pet": "has a {}"}
    people = [("Al Bo", "Rome", "cat"), ("Cy Di", "Oslo", "dog"), ("Ed Fa", "Lima", "cow"), ("Gi Ha", "Bonn", "pig")]
    persons = [
        {"name": name, "half": half, "city": city, "pet": pet}
        for (name, city, pet), half in zip(people, ("tuning", "held-out") * 2)
    ]
    write_json(tmp_path / "persons.json", {"phrases": phrases, "persons": persons})
    given = ["--measures", "privileged", "--persons", str(tmp_path / "persons.json"), "--epochs"]
    assert main(arguments(folder, output, *given, "200")) == 0
    measured = json.loads(output.read_text())
    assert measured["invented persons"]["attributes"] == 4
    assert measured["invented persons"]["learned"] >= 0.5
    assert measured["invented persons"]["completed by the untouched model"] == 0
    out = capsys.readouterr().out
    for what, units in (("known facts", measured["known facts"]), ("persons' names", 2), ("persons' sentences", 2)):
        section = measured[f"privileged, {what}"]
        assert list(section["layers"]) == ["0", "2", "4", "6"]
        assert list(section["any layer"]) == ["≤ 50%", "≤ 65%", "≤ 80%"]
        assert section["layers"]["2"].keys() == {"net", "named", "by other", "by shuffled"}
        assert section["text only"]["net"]["n"] == units
        assert f"privileged, {what}, held-out half" in out
    assert "text only" in out and "learned by the tuned copy" in out
    assert main(arguments(folder, output, *given, "1")) == 0
    assert "learned too little" in capsys.readouterr().err
    assert main(arguments(folder, output, *given, "0")) == 2
    assert "at least one epoch" in capsys.readouterr().err


def test_single_measures(folder, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    assert main(arguments(folder, output, "--measures", "entities")) == 0
    measured = json.loads(output.read_text())
    assert "entity description" in measured
    assert "answer recovery" not in measured
    assert not output.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--insert-layer", "2"], "too deep: at most 1"),
        (["--insert-layer", "same"], "insert layer same: hidden state 6 comes after the last decoder layer"),
        (["--facts", "nowhere.json"], "nowhere.json"),
        (["--interpretation-prompt", "nothing"], "unknown interpretation prompt"),
        (["--overlay-strength", "3"], "overlay_strength"),
        (["--layers", "9"], "9 is out of range"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder, tmp_path, capsys, more, message):
    output = tmp_path / "evaluation.json"
    assert main(arguments(folder, output, *more)) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("output", ["facts.json", "entities.json", "prompt.json", "figure.png"])
def test_no_output_takes_the_place_of_another_file(folder, capsys, output):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(arguments(folder, folder / output, "--figure", str(folder / "figure.png"))) == 2
    assert "would be written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
