"""What the script refuses: one line for each problem, exit status 2, and nothing written."""

from __future__ import annotations

import re
import shutil
import sys

import get_interpretations_from_examples as script
import pytest
from script_runs import arguments, write_identities
from tiny_folder import write_json, write_tiny_folder
from tiny_tokenizer import tiny_tokenizer

BAD = [
    (["--examples", "none.json"], "none.json: cannot read the examples: No such file or directory"),
    (["--examples", "broken.json"], "broken.json: line 2, column 1: not valid JSON: "),
    (["--layers", "40"], "layers: 40 is out of range: there are 5 (0 to 4, or -1 to -5)"),
    (["--layers=-6"], "layers: -6 is out of range"),
    (["--layers", "one"], 'layers: "one" is not an index'),
    (["--tokens", "3:,2"], "a_1: tokens: 2 is out of range: there are 2"),
    (["--interpretation-prompt", "sumarize"], "did you mean 'summarize'"),
    (["--output", "folder.csv"], "folder.csv is a folder; name a file"),
    (["--output", "table.xls"], "the output table.xls must be named .csv or .parquet"),
    (["--output", "out.parquet", "--csv-safe"], "csv_safe is for CSV"),
    (["--output", "examples.json/out.csv"], "examples.json is not a folder"),
    (["--output", "thesis.csv"], "thesis.csv exists without the manifest of a run"),
    (["--report", "thesis.csv"], "thesis.csv exists and is no report"),
    (["--output", "thesis_2.csv"], "thesis_2.html exists and is no report"),
    (["--show", "nobody"], 'no example is named "nobody"; the first are a_1'),
    (["--model", "./nowhere"], "model ./nowhere: there is no such folder"),
    (["--source-model", "./nowhere"], "model ./nowhere: there is no such folder"),
    (["--model", "t5"], "model t5: t5 is no causal language model"),
    (["--mapping", "none.safetensors"], "mapping none.safetensors holds no maps by source layer: No such file"),
    (["--mapping", "examples.json"], "mapping examples.json holds no maps by source layer: "),
    (["--mapping", "maps.safetensors", "--layers", "all"], "maps.safetensors has no maps for layers [0, 2, 4], only"),
    (["--insert-layer", "4"], "insert layer 4 is out of range: 0 to 3"),
    (["--replacing-mode", "blend"], "blend"),
    (["--max-new-tokens", "0"], "max_new_tokens is 0"),
    (["--batch-size", "-1"], "batch_size is -1"),
    (["--prompt-output-tokens", "-1"], "prompt_output_tokens is -1"),
    (["--device", "cuda:99"], "device cuda:99: "),
    (["--device", "cpu", "--device-map", "auto"], "not both"),
    (["--plan", "--rate", "fast"], 'rate "fast" is neither a number'),
    (["--plan", "--devices", "0"], "devices is 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_is_one_clear_line(workplace, capsys, options, message):
    """The model has no weights: nothing but a check that comes before them can be what ends the program."""
    bare = write_tiny_folder(workplace / "bare", weights=False)
    write_identities(workplace / "maps.safetensors", 1, 3)
    write_tiny_folder(workplace / "t5", weights=False)
    write_json(workplace / "t5" / "config.json", {"model_type": "t5"})
    (workplace / "broken.json").write_text('{"examples":\n')
    (workplace / "folder.csv").mkdir()
    (workplace / "thesis.csv").write_text("years of work")
    (workplace / "thesis_2.html").write_text("<p>years of work")
    write_json(workplace / "examples.json", {"examples": [{"prompt": "Hi", "category": "a", "raw": True}]})
    before = sorted(workplace.rglob("*"))
    assert script.main(arguments(bare.name, *options)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", told.err)
    assert message in told.err
    assert sorted(workplace.rglob("*")) == before


def test_every_problem_of_a_file_has_its_line(workplace, capsys):
    write_json(workplace / "bad.json", {"examples": [{"prompt": ""}, {"prompt": "x", "raw": 3}]})
    assert script.main(["--examples", "bad.json"]) == 2  # without a model: the embedded one is not even made
    assert capsys.readouterr().err == (
        'error: bad.json: example 1: "prompt" is empty\n'
        'error: bad.json: example 2: "raw" must be true or false, found a number\n'
    )


def test_unknown_keys_are_warned_about_and_stop_nobody(model, workplace, capsys):
    write_json(workplace / "odd.json", {"examples": [{"prompt": "Hi", "raw": True, "anser": "x"}]})
    assert script.main(arguments(model, "--examples", "odd.json", "--layers", "0", "--tokens", "last")) == 0
    line = "warning: odd.json: example 1: unknown keys are ignored: \"anser\" (did you mean 'answer'?)\n"
    assert capsys.readouterr().err.count(line) == 1


@pytest.mark.parametrize(
    "word", ["--no-such-option", "--layer", "--dtype=int8", "--insert-layer=x", "--overlay-strength=a"]
)
def test_unknown_options_end_with_status_2(word, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([word])
    assert caught.value.code == 2
    assert word.split("=")[0] in capsys.readouterr().err


def test_an_unpatched_transformers_is_told_how_to_be_patched(workplace, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers.interpretation.runs.preparation", None)
    assert script.main(arguments("bare")) == 2
    told = capsys.readouterr().err
    assert "is not patched" in told
    assert told.endswith("run: python install_patch.py\n")
    for name in ("preparation", "identity"):  # of which the second imports transformers
        monkeypatch.delitem(sys.modules, f"transformers.interpretation.runs.{name}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert script.main(arguments("bare")) == 2
    assert "pip install -r requirements.txt" in capsys.readouterr().err


OVER = "would be written over"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--report", "interpretations.csv"], OVER),
        (["--report", "interpretations.csv.manifest.json"], OVER),
        (["--report", "Interpretations.csv"], OVER),
        (["--report", "out.csv.shards/page.html", "--output", "out.csv"], OVER),
        (["--report", "linked/interpretations.csv"], OVER),
        (["--output", "x.csv", "--report", "short.json"], OVER),
        (["--output", ""], "is a folder; name a file"),
        (["--output", "x" * 240 + ".csv"], "is too long: with .manifest.json.tmp, which is written beside it"),
        (["--output", "\udcff.csv"], "its name is not UTF-8"),
        (["--device", "meta"], "it holds shapes without numbers"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(model, workplace, capsys, options, why):
    (workplace / "linked").symlink_to(".")
    before = sorted(workplace.rglob("*"))
    assert script.main(arguments(model, *options)) == 2
    told = capsys.readouterr().err.splitlines()
    assert why in told[0]
    assert all(line.startswith("error: ") for line in told)
    assert sorted(workplace.rglob("*")) == before


def test_a_chat_template_that_fails_is_one_line_for_all_examples(model, workplace, capsys):
    folder = shutil.copytree(model, workplace / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('only tools may speak') }}"
    tokenizer.save_pretrained(folder)
    write_json(workplace / "examples.json", {"examples": [{"prompt": "one"}, {"prompt": "two"}]})
    before = sorted(workplace.rglob("*"))
    assert script.main(arguments(folder)) == 2
    line = "error: the chat template fails (only tools may speak); raw prompts go without it\n"
    assert capsys.readouterr().err == line
    assert sorted(workplace.rglob("*")) == before
