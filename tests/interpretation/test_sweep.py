"""Source layers × insert layers: the records of `interpret`, their shares counted by hand, and the script."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sweep_layers as script
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, interpret, read_csv, sweep_layers
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.report import sweep_figure, sweep_values
from transformers.interpretation.report.__main__ import main as report

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="ab: _ _ is")
OPTIONS = {"interpretation_prompt": SPEC, "max_new_tokens": 3, "batch_size": 4}
EXAMPLES = [Example("a_1", "Hi", raw=True, answer="x"), Example("b_2", "Yes", raw=True, answer="y")]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def swept(model):
    return sweep_layers(model, TOKENIZER, EXAMPLES, layers="0,4", insert_layers="1,3", **OPTIONS)


def test_a_sweep_interprets_at_every_insert_layer(model, swept):
    assert [(r.insert_layer, r.name, r.layer_idx, r.token_idx) for r in swept] == [
        (insert_layer, name, layer, token)
        for insert_layer in (1, 3)
        for name, token in (("a_1", 1), ("b_2", 2))
        for layer in (0, 4)
    ]
    for insert_layer in (1, 3):
        alone = interpret(
            model, TOKENIZER, "Yes", raw=True, layers=[0, 4], tokens="last", insert_layer=insert_layer, **OPTIONS
        )
        found = [r for r in swept if r.insert_layer == insert_layer and r.name == "b_2"]
        assert [r.interpretation for r in found] == [r.interpretation for r in alone]


@pytest.mark.parametrize(
    "option", [{"deep_gain": 8.0}, {"guidance": 2.0}, {"guidance": 2.0, "plausibility": 0.9}, {"overlay_strength": 0.5}]
)
def test_every_setting_counts_as_in_interpret(model, option):
    where = {"layers": "4", "tokens": "last", **OPTIONS}
    (swept,) = sweep_layers(model, TOKENIZER, EXAMPLES[:1], insert_layers="2", **where, **option)
    alone = interpret(model, TOKENIZER, "Hi", raw=True, insert_layer=2, prompt_output_tokens=0, **where, **option)
    assert swept.interpretation_prob == alone[0].interpretation_prob
    usual = interpret(model, TOKENIZER, "Hi", raw=True, insert_layer=2, prompt_output_tokens=0, **where)
    assert swept.interpretation_prob != usual[0].interpretation_prob


def test_examples_of_one_name_are_refused(model):
    twice = [Example("a", "Hi", raw=True), Example("b", "Hi", raw=True), Example("a", "Yes", raw=True)]
    with pytest.raises(ValueError, match='2 examples are named "a"; their rows could not be distinguished'):
        sweep_layers(model, TOKENIZER, twice, **OPTIONS)


def test_progress_is_told_and_mistakes_are_named_before_any_work(model):
    told = []
    options = {"layers": "0", "insert_layers": "0,2", **OPTIONS}
    sweep_layers(model, TOKENIZER, EXAMPLES[:1], progress=lambda *numbers: told.append(numbers), **options)
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match=r"insert_layers: 4 is out of range: there are 4 \(0 to 3"):
        sweep_layers(model, TOKENIZER, EXAMPLES, insert_layers="4", **OPTIONS)
    with pytest.raises(ValueError, match="the model is in training mode"):
        sweep_layers(tiny_model(vocab_size=VOCABULARY).train(), TOKENIZER, EXAMPLES, **OPTIONS)


def named(record, yes):
    return replace(record, interpretation_text=f"it is {record.answer}" if yes else "no")


def test_shares_are_counted_over_examples(swept):
    records = [named(record, yes) for record, yes in zip(swept, [1, 0, 1, 1, 0, 0, 0, 1])]
    label, values = sweep_values(records)
    assert label == "interpretations that name the answer"
    assert values == {(0, 1): 1.0, (4, 1): 0.5, (0, 3): 0.0, (4, 3): 0.5}
    same = [replace(record, insert_layer="same", layer_idx=2) for record in records[:2]]
    assert sweep_values(same)[1] == {(2, 2): 0.5}
    axes = sweep_figure(records).axes[0]
    assert [text.get_text() for text in axes.texts] == ["100", "50", "0", "50"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "4"]


def test_without_answers_relevancy_is_averaged(swept):
    records = [replace(record, answer=None, interpretation_weights=(0.25, 0.75)) for record in swept]
    assert sweep_values(records) == ("mean relevancy", dict.fromkeys([(0, 1), (4, 1), (0, 3), (4, 3)], 0.5))


def test_nothing_to_sweep_over(swept):
    with pytest.raises(ValueError, match="nothing to sweep over"):
        sweep_figure([replace(record, insert_layer=(1, 3)) for record in swept])


def test_the_script_writes_a_table_and_a_heatmap(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "short.json", SHORT_PROMPT)
    write_json(tmp_path / "examples.json", {"examples": [{"prompt": "Hi", "raw": True, "answer": "x"}]})
    folder = str(write_tiny_folder(tmp_path / "model"))
    options = ["--model", folder, "--examples", "examples.json", "--interpretation-prompt", "short.json"]
    options += ["--layers", "0,2", "--insert-layers", "1", "--max-new-tokens", "2", "--dtype", "float32"]
    assert script.main(options) == 0
    assert "2 interpretations in sweep.csv, heatmap in sweep.png" in capsys.readouterr().out
    assert [record.layer_idx for record in read_csv("sweep.csv")] == [0, 2]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert script.main(options) == 2
    assert "sweep.csv exists; name another file or move it away" in capsys.readouterr().err
    assert script.main([*options, "--output", ""]) == 2
    assert script.main([*options, "--output", "a.csv", "--figure", "A.csv"]) == 2
    assert "the figure A.csv would be written over the table, a.csv" in capsys.readouterr().err
    assert script.main([*options, "--output", "other.csv", "--insert-layers", "9"]) == 2
    assert "insert_layers: 9 is out of range" in capsys.readouterr().err
    assert report(["sweep.csv", "--sweep-figure", "again.svg"]) == 0
    assert (tmp_path / "again.svg").exists()
