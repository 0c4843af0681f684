"""The script with a file of vectors in place of examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import get_interpretations_from_examples as script
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from script_runs import rows_of, write_identities
from tiny_folder import write_tiny_folder
from tiny_tokenizer import tiny_tokenizer
from transformers import AutoModelForCausalLM
from transformers.interpretation import interpret_vectors, read_parquet
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

N, HIDDEN = 230, 32
VECTORS = torch.randn(N, HIDDEN, generator=torch.Generator().manual_seed(0))
NAMES = [f"feature {index}" for index in range(N)]


@pytest.fixture
def workplace(workplace):
    save_file({"directions": VECTORS}, workplace / "vectors.safetensors")
    (workplace / "names.txt").write_text("\n".join(NAMES))
    return workplace


def arguments(model, *more):
    return [
        *("--model", str(model), "--vectors", "vectors.safetensors", "--interpretation-prompt", "short.json"),
        *("--max-new-tokens", "3", "--dtype", "float32", "--device", "cpu", *more),
    ]


def expected(model, rows, **options):
    """What the call in memory says of them."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    prompt = InterpretationPrompt.from_text(tiny_tokenizer(), "ab: _ _ is", name="short")
    given = {"interpretation_prompt": prompt, "max_new_tokens": 3}
    return interpret_vectors(loaded, tiny_tokenizer(), rows, **given | options)


@pytest.mark.parametrize(
    ("options", "in_memory"),
    [
        ([], {}),
        (["--strength", "2.5", "--insert-layer", "1"], {"strength": 2.5, "insert_layer": 1}),
        (["--strength", "auto", "--guidance", "0"], {"strength": "auto", "guidance": 0}),
        (["--samples", "3", "--temperature", "2"], {"samples": 3, "temperature": 2}),
    ],
    ids=["default", "strength", "auto", "samples"],
)
def test_a_file_says_what_its_vectors_say_in_memory(model, workplace, capsys, options, in_memory):
    assert script.main(arguments(model, "--names", "names.txt", "--output", "out.parquet", *options)) == 0
    told = capsys.readouterr()
    assert "interpreting vectors: all rows of vectors.safetensors, tensor directions, strength" in told.err
    found = list(read_parquet("out.parquet"))
    wanted = list(expected(model, VECTORS, names=NAMES, **in_memory))
    assert len(found) == len(wanted) == N * in_memory.get("samples", 1)
    for one, other in zip(found, wanted):
        assert one.current_token == other.current_token
        assert (one.token_idx, one.sample, one.token_source) == (other.token_idx, other.sample, "vector")
        assert one.interpretation == other.interpretation
        assert one.interpretation_prob == pytest.approx(other.interpretation_prob, abs=1e-5)
        assert one.interpretation_weights == pytest.approx(other.interpretation_weights, abs=1e-5)
        assert one.prompt_token_list == ()
    blocks = dict.fromkeys(record.name for record in found)
    assert list(blocks) == ["vectors_0:100", "vectors_100:200", "vectors_200:230"]


def test_some_rows_questions_the_page_and_the_terminal(model, workplace, capsys):
    """Blocks are what examples are: all questions of the first vectors come before the next vectors."""
    (workplace / "short.json").write_text(json.dumps({"name": "asked", "text": "{question} _ is"}))
    some = ["--rows", "50:160", "--question", "a", "--question", "b", "--show", "vectors_150:160"]
    assert script.main(arguments(model, *some)) == 0
    told = capsys.readouterr()
    assert "vector 150" in told.out and "vector 149" not in told.out
    rows = rows_of("interpretations.csv")
    order = [(row["name"], row["question"], int(row["token_idx"])) for row in rows]
    blocks = [("vectors_50:150", range(50, 150)), ("vectors_150:160", range(150, 160))]
    assert order == [(name, asked, index) for name, indices in blocks for asked in "ab" for index in indices]
    page = Path("interpretations.html").read_text()
    assert f"<title>Interpretations of vectors.safetensors by {model.name}<" in page
    assert "vector 77" in page
    assert script.main(arguments(model, *some[:-1], "vectors_0:100", "--overwrite")) == 2
    assert 'no example is named "vectors_0:100"; the first are vectors_50:150' in capsys.readouterr().err


def test_vectors_that_have_no_interpretation_are_told_and_the_others_go_on(model, workplace, capsys):
    rows = VECTORS[:20].clone()
    rows[3, 5] = float("nan")
    rows[11] = 0
    save_file({"v": rows}, workplace / "vectors.safetensors")
    assert script.main(arguments(model)) == 0
    assert "20 interpretations, 1 of them failed (see the column status)" in capsys.readouterr().out
    status = {int(row["token_idx"]): row["status"] for row in rows_of("interpretations.csv")}
    assert status == dict.fromkeys(range(20), "ok") | {3: "the vector has NaN or infinity in torch.float32"}
    assert script.main(arguments(model, "--strength", "auto", "--overwrite")) == 0
    assert "2 of them failed" in capsys.readouterr().out
    found = rows_of("interpretations.csv")
    others = [
        one.current_token for one in expected(model, rows[[0, 1, 2, *range(4, 11), *range(12, 20)]], strength="auto")
    ]
    for row in found:
        if int(row["token_idx"]) in (3, 11):
            assert row["current token"] == f"vector {row['token_idx']}"
        else:
            assert re.sub(r"vector \d+", "", row["current token"]) == re.sub(r"vector \d+", "", others.pop(0))
    assert {int(row["token_idx"]): row["status"] for row in found if row["status"] != "ok"} == {
        3: "the vector has NaN or infinity in torch.float32",
        11: "the vector has norm 0: no strength can be chosen",
    }


def test_a_file_that_has_changed_is_another_run(model, workplace, capsys):
    options = ["--rows", "3:7", "--output", "out.csv", "--no-report"]
    assert script.main(arguments(model, *options)) == 0
    before = Path("out.csv").read_bytes()
    assert [row["token_idx"] for row in rows_of("out.csv")] == ["3", "4", "5", "6"]
    for more, message in [
        (["--rows", "3:8"], "rows: was [3, 7], now [3, 8]"),
        (["--strength", "2"], "strength: was 1.0, now 2.0"),
        (["--names", "names.txt"], "vectors' names: was none, now "),
    ]:
        assert script.main(arguments(model, *options, *more)) == 2
        assert message in capsys.readouterr().err
    Path("vectors.safetensors").rename("moved.safetensors")
    assert script.main(arguments(model, *options, "--vectors", "moved.safetensors")) == 0
    assert "is complete" in capsys.readouterr().out
    save_file({"directions": VECTORS * 2}, "vectors.safetensors")
    assert script.main(arguments(model, *options)) == 2
    assert re.search(r"vectors: was \w{16}, now \w{16}", capsys.readouterr().err)
    assert Path("out.csv").read_bytes() == before


def test_a_list_of_another_length_stops_the_run_and_what_came_before_is_safe(model, workplace, capsys):
    lists = pa.array([*VECTORS[:40].tolist(), [1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"direction": lists}), "vectors.parquet")
    options = ["--vectors", "vectors.parquet", "--vector-column", "direction", "--strength", "1"]
    assert script.main(arguments(model, *options)) == 1
    assert "vectors.parquet: rows 0 to 40 have 1281 numbers; expected 32 each; to resume" in capsys.readouterr().err


def test_a_plan_says_what_choosing_strengths_costs(workplace, capsys):
    bare = write_tiny_folder(workplace / "bare", weights=False)
    sized = ["--plan", "--rows", ":100", "--batch-size", "32"]
    assert script.main(arguments(bare, *sized)) == 0
    plain = capsys.readouterr().out
    assert "cells       100; chunks 1" in plain
    assert "strengths" not in plain
    assert script.main(arguments(bare, *sized, "--strength", "auto")) == 0
    told = capsys.readouterr().out
    chosen = int(re.search(r"strengths .* ([\d,]+) tokens", told)[1].replace(",", ""))
    tokens = [int(re.search(r"at most ([\d,]+):", text)[1].replace(",", "")) for text in (plain, told)]
    assert tokens[1] - tokens[0] == chosen > 10 * 100
    assert not list(workplace.glob("*.csv*"))


def sae(folder, hidden=HIDDEN, **config):
    folder.mkdir()
    save_file({"W_dec": VECTORS[:7, :hidden].contiguous()}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_a_sparse_autoencoder(workplace, capsys):
    """Its own layer and place, or none, are right."""
    tiny = write_tiny_folder(workplace / "tiny-model-it")
    given = {"hook_name": "blocks.1.hook_resid_post", "model_name": "someone/tiny-model"}
    sae(workplace / "sae", **given)
    for more in ([], ["--layers", "2"], ["--layers=-3"]):
        assert script.main(arguments(tiny, "--vectors", "sae", "--overwrite", *more)) == 0
        told = capsys.readouterr()
        assert "all rows of sae, tensor W_dec of blocks.1.hook_resid_post of someone/tiny-model" in told.err
    assert len(rows_of("interpretations.csv")) == 7
    sae(workplace / "mlp", hook_name="blocks.1.hook_mlp_out")
    assert script.main(arguments(tiny, "--vectors", "mlp", "--place", "mlp_output", "--output", "mlp.csv")) == 0


BAD = [
    (["--examples", "examples.json"], "give --examples or --vectors, not both"),
    (["--tokens", "last"], "--tokens is for examples: with --vectors leave it out"),
    (["--prompt-output-tokens", "0"], "--prompt-output-tokens is for examples"),
    (["--source-model", "bare"], "--source-model is for examples"),
    (["--place", "mlp_output"], "--place mlp_output is for examples"),
    (["--layers", "1,2"], '"1,2" are several; of vectors give the one that they belong to'),
    (["--layers", "9"], "layers: 9 is out of range"),
    (["--insert-layer", "same"], "vectors come from no layer"),
    (
        ["--rows", "100:231"],
        "rows: 100:231 selects none, or more than there are: vectors.safetensors has rows 0 to 229",
    ),
    (["--rows", "5:5"], "rows: 5:5 selects none"),
    (["--rows", "::2"], 'rows: "::2" is no range: write 0:16384'),
    (["--strength", "nan"], "strength is nan: give a finite number, or auto"),
    (["--strength", "auto", "--replacing-mode", "norm_matched"], "norm_matched ignores how large a vector is"),
    (["--tensor", "direction"], "has no tensor \"direction\" (did you mean 'directions'?)"),
    (["--vector-column", "x"], "is no Parquet file: leave out --vector-column"),
    (["--names", "few.txt"], "names few.txt: 2 names for the 230 rows of vectors.safetensors"),
    (["--vectors", "narrow.npy"], "narrow.npy, array: vectors of 31 numbers; bare has 32"),
    (["--vectors", "cut.safetensors"], "cut.safetensors cannot be read as safetensors, it may be cut off: "),
    (["--vectors", "pickled.npy"], "pickled.npy is pickled or no .npy file"),
    (["--vectors", "vectors.pt"], "vectors.pt is pickled, and could run code"),
    (["--vectors", "./nowhere"], "there is no nowhere"),
    (["--output", "vectors.safetensors"], "would be written over the vectors vectors.safetensors"),
    (["--report", "vectors.safetensors"], "would be written over the vectors vectors.safetensors"),
    (["--mapping", "maps.safetensors"], "has maps by layer: say with --layers which one the vectors belong to"),
    (["--mapping", "maps.safetensors", "--layers", "2"], "has no maps for layers [2], only for [1, 3]"),
    (
        ["--vectors", "sae", "--layers", "1"],
        "sae is of blocks.1.hook_resid_post: found --layers 1, expected 2: blocks.1.hook_resid_post is hidden state 2, "
        "where 0 is what goes into block 0",
    ),
    (["--vectors", "sae", "--place", "mlp_output"], "found --place mlp_output, expected --place residual"),
    (["--vectors", "mlp"], "mlp is of blocks.1.hook_mlp_out: found the residual stream, expected --place mlp_output"),
    (["--vectors", "deep"], "expected a model with layer 9, and bare has 0 to 4"),
    (["--vectors", "other"], "other is of blocks.1.hook_resid_post of the model gpt2-small, not of bare"),
    (["--vectors", "wide"], "wide, tensor W_dec: vectors of 31 numbers (they are of bare); bare has 32"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_is_one_clear_line(workplace, capsys, options, message):
    """The model has no weights: nothing but a check that comes before them can be what ends the program."""
    bare = write_tiny_folder(workplace / "bare", weights=False)
    (workplace / "few.txt").write_text("a\nb\n")
    np.save(workplace / "narrow.npy", VECTORS[:, :31].numpy())
    np.save(workplace / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    torch.save(VECTORS, workplace / "vectors.pt")
    (workplace / "cut.safetensors").write_bytes((workplace / "vectors.safetensors").read_bytes()[:-1])
    write_identities(workplace / "maps.safetensors", 1, 3)
    sae(workplace / "sae", hook_name="blocks.1.hook_resid_post", model_name="bare")
    sae(workplace / "mlp", hook_name="blocks.1.hook_mlp_out")
    sae(workplace / "deep", hook_name="blocks.8.hook_resid_post")
    sae(workplace / "other", hook_name="blocks.1.hook_resid_post", model_name="gpt2-small")
    sae(workplace / "wide", hidden=31, hook_name="blocks.1.hook_resid_post", model_name="bare")
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    assert script.main(arguments(bare.name, *options)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", told.err)
    assert message in told.err
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


def test_options_of_vectors_need_vectors(model, workplace, capsys):
    for option in ("--tensor=x", "--vector-column=x", "--names=x", "--rows=1:2", "--strength=2"):
        assert script.main(["--model", str(model), "--examples", "examples.json", option]) == 2
        assert (
            f"error: {option.split('=')[0]} is for vectors: give --vectors, or leave it out\n"
            == capsys.readouterr().err
        )


def test_through_maps(model, workplace):
    """Twice the identity, of the layer that the vectors belong to."""
    write_identities(workplace / "maps.safetensors", 1, times=2.0)
    mapped = ["--mapping", "maps.safetensors", "--layers", "1", "--rows", ":9"]
    assert script.main(arguments(model, *mapped, "--output", "mapped.csv", "--no-report")) == 0
    assert script.main(arguments(model, "--strength", "2", "--rows", ":9", "--output", "twice.csv", "--no-report")) == 0
    assert Path("mapped.csv").read_bytes() == Path("twice.csv").read_bytes()


def test_a_sparse_autoencoder_of_another_model_through_a_map(model, workplace):
    """Its layer, which this model does not have, says which map."""
    sae(workplace / "sae", hook_name="blocks.8.hook_resid_post", model_name="gpt2-small")
    write_identities(workplace / "maps.safetensors", 3, 9, times=2.0)
    mapped = ["--vectors", "sae", "--mapping", "maps.safetensors", "--output", "mapped.csv", "--no-report"]
    assert script.main(arguments(model, *mapped)) == 0
    assert script.main(arguments(model, "--strength", "2", "--rows", ":7", "--output", "twice.csv", "--no-report")) == 0
    found, wanted = (rows_of(name) for name in ("mapped.csv", "twice.csv"))
    assert [row["interpretation"] for row in found] == [row["interpretation"] for row in wanted]
