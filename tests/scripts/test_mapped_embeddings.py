"""The script with maps, and with another model's embeddings."""

from __future__ import annotations

import re
from pathlib import Path

import get_interpretations_from_examples as script
import torch
from script_runs import arguments, rows_of, write_identities
from tiny_folder import write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import AffineMap, read_parquet
from transformers.interpretation.models.token_text import token_pieces
from transformers.interpretation.runs.source_activations import continue_greedily
from transformers.interpretation.translator import save_maps


def test_through_a_file_of_maps(model, workplace, capsys):
    """Twice the identity, inserted with half the strength, is the state itself."""
    half = ["--replacing-mode", "addition", "--overlay-strength", "0.5", "--deep-gain", "1"]
    write_identities(workplace / "maps.safetensors", 1, 3, times=2.0)
    mapped = [*half, "--mapping", "maps.safetensors", "--output", "mapped.csv"]
    assert script.main(arguments(model, *mapped, "--plan")) == 0
    assert "cells       12; chunks 1" in capsys.readouterr().out
    assert script.main(arguments(model, *mapped)) == 0
    assert "mapped by maps.safetensors, which was fitted" in capsys.readouterr().err
    assert f"<title>Interpretations of {model.name}, mapped by maps.safetensors<" in Path("mapped.html").read_text()
    assert script.main(arguments(model, "--layers", "1,3", "--replacing-mode", "addition", "--deep-gain", "1")) == 0
    assert Path("mapped.csv").read_bytes() == Path("interpretations.csv").read_bytes()
    assert script.main(arguments(model, *mapped, "--output", "mapped.parquet")) == 0
    read_parquet("mapped.parquet").to_csv("again.csv")
    assert Path("again.csv").read_bytes() == Path("mapped.csv").read_bytes()
    write_identities(workplace / "maps.safetensors", 1, 3, times=3.0)
    assert script.main(arguments(model, *mapped)) == 2
    assert re.search(r"mapping: was [0-9a-f]{16}, now [0-9a-f]{16}", capsys.readouterr().err)


def test_another_models_embeddings(model, workplace, capsys):
    narrow = tiny_model(vocab_size=VOCABULARY, hidden_size=24, num_key_value_heads=4, num_hidden_layers=2)
    write_tiny_folder(workplace / "narrow", model=narrow)
    save_maps({1: AffineMap(torch.eye(24, 32), torch.zeros(32))}, workplace / "maps.safetensors")
    options = ["--source-model", "narrow", "--mapping", "maps.safetensors", "--replacing-mode", "addition"]
    assert script.main(arguments(model, *options, "--plan")) == 0
    told = capsys.readouterr().out
    assert "cells       6; chunks 1" in told
    sizes = [sum(weight.numel() for weight in one.parameters()) for one in (tiny_model(vocab_size=VOCABULARY), narrow)]
    assert "({:,} parameters, the source model's {:,})".format(*sizes) in told
    assert "interpreting embeddings of narrow" in told
    assert script.main(arguments(model, *options)) == 0
    title = f"<title>Interpretations of narrow by {model.name}, mapped by maps.safetensors<"
    assert title in Path("interpretations.html").read_text()
    by_narrow = rows_of("interpretations.csv")
    narrows_own = continue_greedily(narrow, tiny_tokenizer().encode("Hi", add_special_tokens=False), 1)
    assert [row["prompt_output"] for row in by_narrow[:3]] == 3 * ["".join(token_pieces(tiny_tokenizer(), narrows_own))]
    capsys.readouterr()
    again = [*options[2:], "--layers", "1"]
    assert script.main(arguments(model, *again)) == 2
    assert "vectors of size 32 for a map that takes 24; it is for another model" in capsys.readouterr().err
    assert script.main(arguments(model, "--source-model", "narrow")) == 2
    assert "the source model's hidden size is 24 and the model's 32: give maps" in capsys.readouterr().err
