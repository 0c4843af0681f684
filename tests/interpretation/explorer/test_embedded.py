"""The embedded model, with the default settings: the page's cells, the script's table and `interpret` are one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import get_interpretations_from_examples as script
import pytest
import torch
from explorer_client import Client
from transformers.interpretation import interpret, read_csv
from transformers.interpretation.explorer import Explorer

PROMPT = "The capital of France is"
LAYERS = "12,24"


@pytest.fixture(scope="module")
def client(embedded_model, embedded_tokenizer):
    with Explorer(embedded_model, embedded_tokenizer) as explorer:
        yield Client(explorer.url)


def numbers(records):
    return [number for record in records for number in (*record.interpretation_weights, *record.interpretation_prob)]


def test_cells_and_table_are_those_of_interpret_and_of_the_script(
    client, embedded_model, embedded_tokenizer, embedded_folder, tmp_path
):
    asked = {"prompt": PROMPT, "raw": True, "layers": LAYERS, "tokens": "last,2"}
    (tmp_path / "served.csv").write_bytes(client.post("table", asked)[1])
    served = read_csv(tmp_path / "served.csv")
    called = interpret(embedded_model, embedded_tokenizer, PROMPT, raw=True, layers=LAYERS, tokens="last,2")

    examples = tmp_path / "examples.json"
    examples.write_text(json.dumps({"examples": [{"prompt": PROMPT, "raw": True}]}))
    dtype = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[embedded_model.dtype]
    options = ["--layers", LAYERS, "--tokens", "last,2", "--dtype", dtype, "--no-report"]
    files = ["--examples", str(examples), "--output", str(tmp_path / "written.csv")]
    assert script.main(["--model", str(embedded_folder), *options, *files]) == 0
    written = read_csv(tmp_path / "written.csv")

    assert len(served) == 4
    for other in (called, written):
        for name in (
            "name",
            "prompt",
            "layer_idx",
            "token_idx",
            "current_token",
            "interpretation",
            "interpretation_text",
        ):
            assert [getattr(one, name) for one in served] == [getattr(one, name) for one in other]
        assert numbers(served) == pytest.approx(numbers(other), abs=2e-4)

    cells = sorted(client.cells(asked))
    assert ["".join(cell[3]) for cell in cells] == [record.interpretation_text for record in served]
    assert any("Paris" in "".join(cell[3]) for cell in cells)


def test_the_documented_client_prints_interpretations(client, capsys):
    text = (Path(__file__).parents[3] / "scripts" / "README.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "urlopen" in code)
    assert len(code.splitlines()) <= 11  # "a client in ten lines", and an empty one
    exec(code, {"address": client.address.geturl().rstrip("/")})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["12", "4"], ["24", "4"]]
    assert all(len(line.split()) > 2 for line in lines)
