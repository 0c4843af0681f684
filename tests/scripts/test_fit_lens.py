"""The lens script writes what the evaluation reads."""

from __future__ import annotations

import json

import evaluate_interpretations
import pytest
import torch
from fit_lens import main
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.mapping import training_text
from transformers.interpretation.mapping.affine import AffineMap
from transformers.interpretation.mapping.lenses import Lens
from transformers.interpretation.mapping.translator import save_maps
from transformers.interpretation.runs.source_activations import continue_greedily

TOKENIZER = tiny_tokenizer()
SHORT = ["--texts", "3", "--text-tokens", "20", "--dtype", "float32"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(training_text, "OPENINGS", ("ab", "cd", "ef"))
    write_json(tmp_path / "prompt.json", SHORT_PROMPT)
    model = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=6)
    facts = []
    for prompt in ("pa", "qe", "ri", "so"):
        answer = TOKENIZER.decode(continue_greedily(model, TOKENIZER.encode(prompt), 8), skip_special_tokens=True)
        fact = {"relation": "r", "prompt": prompt, "paraphrase": prompt, "answer": answer.strip(), "half": "held-out"}
        facts.append(fact)
    write_json(tmp_path / "facts.json", {"facts": facts})
    return write_tiny_folder(tmp_path, model=model)


@pytest.mark.parametrize("kind", ["tuned", "jacobian"])
def test_a_lens_is_fitted_and_its_held_out_loss_told(folder, kind, capsys):
    lens = folder / "new" / "lens.safetensors"
    given = ["--model", str(folder), *SHORT, "--steps", "3", "--layers", "1,3", "--output", str(lens)]
    assert main([kind, *given]) == 0
    found = Lens.load(lens)
    assert (found.kind, list(found.maps)) == (kind, [1, 3])
    out = capsys.readouterr().out
    assert "held-out texts, in nats" in out and f"--lens {lens}" in out
    rows = [line.split() for line in out.splitlines() if line.split()[0] in ("1", "3")]
    assert [row[0] for row in rows] == ["1", "3"] and all(float(loss) > 0 for row in rows for loss in row[1:])


def test_lenses_are_columns_beside_the_logit_lens(folder, capsys):
    for kind in ("tuned", "jacobian"):
        given = ["--model", str(folder), *SHORT, "--steps", "1", "--layers", "2,4", "--output", str(folder / kind)]
        assert main([kind, *given]) == 0
    common = ["--model", str(folder), "--facts", str(folder / "facts.json"), "--layers", "2,3,6", "--dtype", "float32"]
    common += [
        "--interpretation-prompt",
        str(folder / "prompt.json"),
        "--measures",
        "recovery",
        "--insert-layer",
        "1",
        "--lens",
    ]
    output = folder / "evaluation.json"
    lenses = [str(folder / "tuned"), str(folder / "jacobian")]
    assert evaluate_interpretations.main([*common, *lenses, "--output", str(output), "--max-new-tokens", "3"]) == 0
    measured = json.loads(output.read_text())
    recovery = measured["answer recovery"]
    names = [f"{kind} lens top-{best}" for kind in ("tuned", "jacobian") for best in (1, 10)]
    assert all(name in recovery["layers"]["2"] for name in names)
    assert not any(name in recovery["layers"][layer] for name in names for layer in ("3", "6"))
    assert recovery["any layer"]["≤ 50%"]["tuned lens top-1"] == recovery["layers"]["2"]["tuned lens top-1"]
    assert "logit lens top-1" in recovery["any layer"]["≤ 50%"]
    assert measured["lenses"] == lenses
    assert all(name in capsys.readouterr().out for name in names[:1])
    assert output.with_suffix(".png").exists()
    assert evaluate_interpretations.main([*common, lenses[0], lenses[0], "--output", str(output)]) == 2
    assert "give one of a kind" in capsys.readouterr().err


def test_maps_that_are_no_lens_of_this_model_are_refused(folder, capsys):
    save_maps({2: AffineMap(torch.zeros(32, 32), torch.zeros(32))}, folder / "maps.safetensors")
    common = [
        "--model",
        str(folder),
        "--measures",
        "entities",
        "--insert-layer",
        "1",
        "--output",
        str(folder / "evaluation.json"),
        "--lens",
    ]
    assert evaluate_interpretations.main([*common, str(folder / "maps.safetensors")]) == 2
    assert "is no lens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["tuned", "--steps", "0"], "at least one step"),
        (["tuned", "--texts", "0"], "at least one opening"),
        (["tuned", "--layers", "6"], "out of range"),
        (["jacobian", "--text-tokens", "17"], "needs 18"),
    ],
)
def test_what_cannot_be_is_refused(folder, capsys, more, message):
    lens = folder / "lens.safetensors"
    assert main([more[0], "--model", str(folder), "--layers", "2", *SHORT, "--output", str(lens), *more[1:]]) == 2
    assert message in capsys.readouterr().err
    assert not lens.exists()
