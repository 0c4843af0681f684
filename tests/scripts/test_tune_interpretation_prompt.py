"""The search for an interpretation prompt: what it tries, what it keeps, what it writes."""

from __future__ import annotations

import json

import pytest
from tiny_folder import write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.measures import Candidate, Fact, Said, Search, search
from transformers.interpretation.prompts.spec_files import find_spec
from transformers.interpretation.runs.source_activations import continue_greedily
from tune_interpretation_prompt import evenly, every_second, main

TOKENIZER = tiny_tokenizer()


def test_layers_end_at_four_fifths():
    assert list(every_second(30)) == [24, 22, 20, 18, 16, 14, 12, 10, 8, 6]
    assert max(every_second(32)) <= 0.8 * 32


def test_facts_are_spread_evenly():
    assert evenly(range(9), 3) == [0, 3, 6]
    assert evenly(range(3), 9) == [0, 1, 2]


def test_the_best_of_each_round_is_kept(monkeypatch):
    """With a score that is known, one thing at a time leads to its maximum."""
    facts = [
        Fact("r", f"of {answer}s", answer, "tuning", "q")
        for answer in ("Rome", "Oslo", "Lima", "Bonn", "Cairo", "Kiev", "Baku", "Riga")
    ]
    aim = {
        "name": "words",
        "placeholders": 2,
        "insert_layer": 3,
        "strength": 4.0,
        "replacing_mode": "norm_matched_addition",
        "guidance": 1.0,
        "deep_gain": 2.0,
        "stop": "\n",
    }
    tried = []

    def say(interpreter, states, layers):
        settings, count = interpreter.settings, len(interpreter.prompt.insert_locations)
        is_so = [
            interpreter.prompt.name == aim["name"],
            count == aim["placeholders"],
            settings.insert_layer == aim["insert_layer"],
            settings.overlay_strength == aim["strength"],
            settings.replacing_mode == aim["replacing_mode"],
            settings.guidance == aim["guidance"],
            settings.deep_gain == aim["deep_gain"],
            interpreter.prompt.stop is not None,
        ]
        how = settings.insert_layer, settings.overlay_strength, settings.replacing_mode, settings.guidance
        how += settings.deep_gain, interpreter.prompt.stop is not None
        tried.append((interpreter.prompt.name, count, *how))
        texts = [fact.answer if index < sum(is_so) else "" for index, fact in enumerate(facts)]
        return [[Said(Interpretation((1,), (0.5,), (0.5,)), (text,))] for text in texts]

    monkeypatch.setattr(search, "interpret_states", say)
    found = Search(tiny_model(vocab_size=VOCABULARY), TOKENIZER, facts, [2], max_new_tokens=2, batch_size=4)
    trials = list(found.run(5))
    assert len(trials) == len(tried) == len(set(tried))
    assert found.best().candidate == Candidate(search.WORDINGS["words"], **aim)
    assert found.best().net.value == 1
    assert max(layer for _, _, layer, *_ in tried) == 5
    assert {mode for _, _, _, _, mode, *_ in tried} == {
        "addition",
        "norm_matched_addition",
        "norm_matched",
        "normalized",
    }


def test_what_is_named_for_another_fact_does_not_count(monkeypatch):
    facts = [Fact("r", f"of {answer}s", answer, "tuning", "q") for answer in ("Rome", "Oslo")]
    said = [[Said(Interpretation((1,), (0.5,), (0.5,)), ("Rome and Oslo",))], [Said(Interpretation((), (), ()), ())]]
    monkeypatch.setattr(search, "interpret_states", lambda *_: said)
    found = Search(tiny_model(vocab_size=VOCABULARY), TOKENIZER, facts, [2], max_new_tokens=2, batch_size=4)
    trial = next(found.run(1))
    assert (trial.named.value, trial.net.value) == (1 / 2, 1 / 2)


@pytest.fixture
def folder(tmp_path):
    model = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6)
    write_tiny_folder(tmp_path, model=model)
    facts = []
    for prompt in ("pa", "qe", "ri", "so", "tu", "pe", "qi"):
        text = TOKENIZER.decode(continue_greedily(model, TOKENIZER.encode(prompt), 8), skip_special_tokens=True).split()
        if text and text[0] != prompt:
            facts.append({"relation": "r", "prompt": prompt, "paraphrase": prompt, "answer": text[0], "half": "tuning"})
    write_json(tmp_path / "facts.json", {"facts": facts})
    return tmp_path


def test_a_prompt_file_and_everything_that_was_tried(folder, capsys):
    output = folder / "new" / "tuned.json"
    arguments = ["--model", folder, "--facts", folder / "facts.json", "--output", output, "--max-new-tokens", 2]
    assert main([*map(str, arguments), "--dtype", "float32"]) == 0
    trials = json.loads(output.with_suffix(".trials.json").read_text())
    best = max(trials, key=lambda trial: trial["net"]["value"])["candidate"]
    spec = find_spec(output)
    assert spec.sequence == (best["wording"], *[0] * best["placeholders"])
    assert spec.build(TOKENIZER).insert_locations
    assert all(trial["candidate"]["insert_layer"] <= 1 for trial in trials)
    out = capsys.readouterr().out
    assert f"--insert-layer {best['insert_layer']} --replacing-mode {best['replacing_mode']} --overlay" in out
    assert f"--guidance {best['guidance']:g} --deep-gain {best['deep_gain']:g}" in out
    assert spec.stop == best["stop"]
    for name, tried in (("guidance", search.GUIDANCE), ("deep_gain", search.DEEP_GAINS), ("stop", search.STOPS)):
        assert {trial["candidate"][name] for trial in trials} == set(tried)


def test_no_facts_are_refused(folder, capsys):
    output = folder / "tuned.json"
    assert main(["--model", str(folder), "--facts", "nowhere.json", "--output", str(output)]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert not output.exists()


def test_no_output_takes_the_place_of_an_input(folder, capsys):
    (folder / "facts.json").rename(folder / "f.trials.json")
    before = (folder / "f.trials.json").read_bytes()
    for output in ("f.trials.json", "f.json"):  # everything that was tried goes to f.trials.json
        given = ["--facts", str(folder / "f.trials.json"), "--output", str(folder / output)]
        assert main(["--model", str(folder), *given]) == 2
        assert "would be written over the facts" in capsys.readouterr().err
    assert (folder / "f.trials.json").read_bytes() == before
