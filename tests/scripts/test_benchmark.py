"""How the benchmark evaluates its measurements; not how fast anything is."""

from __future__ import annotations

import json

import benchmark
import pytest
import torch
from benchmark import difference, main
from common import benchmark_ways
from common.benchmark_ways import Outcome, Result, Way


def said(*token_ids: int, probability: float = 0.5, margin: float = 1.0) -> Result:
    n = len(token_ids)
    return Result(token_ids, (probability,) * n, (0.25,) * n, (margin,) * n)


def test_equal_texts_differ_in_numbers_alone():
    found = difference([said(1, 2, probability=0.5)], [said(1, 2, probability=0.5625)])
    assert found == {"different_tokens": 0, "different_at_ties": 0, "max_probability_difference": 0.0625}


@pytest.mark.parametrize("other", [(1, 3), (1,), (1, 2, 3)])
def test_other_texts(other):
    found = difference([said(1, 2), said(7)], [said(*other), said(7)])
    assert (found["different_tokens"], found["different_at_ties"]) == (1, 0)


def test_ties_are_counted_apart_and_numbers_after_them_do_not_count():
    expected = Result((1, 3), (0.5, 0.9), (0.25, 0.9), (1.0, 5e-5))
    assert difference([said(1, 2)], [expected]) == {
        "different_tokens": 0,
        "different_at_ties": 1,
        "max_probability_difference": 0.0,
    }


SECONDS = {"baseline": 8.0, "lean": 6.0, "engine": 2.0}
MEMORY = {"baseline": 4 * 10**9, "lean": 2 * 10**9, "engine": 10**9}


class Recorded:
    """A process that answers at once: each way is as fast as it is told, and says the same."""

    def __init__(self, name: str, dtype: str, threads: int, new_tokens: int = 30) -> None:
        self.name, self.dtype = name, dtype

    def call(self, method: str, *args):
        if method == "run":
            speed = 2 if self.dtype == "bfloat16" else 1
            numbers = args[1]
            seconds = SECONDS[self.name.removesuffix("-eager")] / speed
            text = 7 if self.dtype == "float32" else 8
            return Outcome(seconds * len(numbers), [said(text) if n % 2 else said(7) for n in numbers])
        if method == "guided":
            return Outcome((2.0 + args[2]) * len(args[1]), [said(7, 8)] * len(args[1]))
        memory = MEMORY[self.name.removesuffix("-eager")] / (1 if self.dtype == "float32" else 2)
        return {"peak_memory": memory, "matmul": (3e9, 1e9), "recovered_answers": 0.25}[method]

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("quick", [["--quick"], []])
def test_the_numbers_it_writes(tmp_path, monkeypatch, capsys, quick):
    monkeypatch.setattr(benchmark, "Process", Recorded)
    monkeypatch.setattr(benchmark, "resolve_dtype", lambda name, device: torch.bfloat16)
    assert main([*quick, "--json", str(tmp_path / "numbers.json")]) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    for dtype in ("float32", "bfloat16"):
        assert numbers[dtype]["speedup"] == pytest.approx(4)
        assert numbers[dtype]["speedup_over_lean"] == pytest.approx(3)
        assert numbers[dtype]["memory_ratio"] == 0.25
        assert numbers[dtype]["different_tokens"] == 0
        assert numbers[dtype]["max_probability_difference"] == 0
    assert numbers["bfloat16"]["same_text_as_float32"] == 0.5
    assert numbers["as_shipped"] == {"dtype": "bfloat16", "speedup": pytest.approx(8), "memory_ratio": 0.125}
    assert list(numbers["flatness"]) == (["4", "8"] if quick else ["256", "4096"])
    assert set(numbers["flatness"].values()) == {1.0}
    grid = {"float32": pytest.approx(4), "bfloat16": pytest.approx(4), "as_shipped": pytest.approx(8)}
    memory = {"float32": 0.25, "bfloat16": 0.25, "as_shipped": 0.125}
    assert numbers.get("whole_grid") == (None if quick else {"cells": 496, **grid, "memory_ratio": memory})
    assert numbers["guidance"]["float32"] == {"guidance": 0.5, "raw": 1.0, "guided": 1.25, "ratio": 1.25}
    cells = numbers["cells"]
    assert numbers["matmul_fraction"] == {"float32": pytest.approx(1.5 / cells), "bfloat16": pytest.approx(3 / cells)}
    table = capsys.readouterr().out
    assert "| engine over baseline | 4.00× | 4.00× |" in table
    assert "engine bfloat16 over baseline float32: 8.00×, 0.12 of its memory" in table


def test_what_guidance_costs_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "Process", Recorded)
    assert main(["--guidance", "--json", str(tmp_path / "numbers.json")]) == 0
    assert set(json.loads((tmp_path / "numbers.json").read_text())) == {"machine", "cells", "guidance"}
    told = "Guidance 0.5, bfloat16: 1250.00 ms of CPU time per token, 1000.00 without it (1.250×)."
    assert told in capsys.readouterr().out


def test_guided_texts_are_those_of_the_settings(embedded_folder):
    way = Way("engine", "float32", 4)
    cells = [12 * benchmark.TOKENS + token for token in range(8)]
    raw, guided = (way.guided(benchmark.QUESTION, cells, guidance).results for guidance in (0.0, 0.5))
    for one, other in zip(raw, way.run(benchmark.QUESTION, cells).results):
        assert one.token_ids[: len(other.token_ids)] == other.token_ids  # which ends at an end of sequence
    assert way.model.generation_config.eos_token_id is not None
    assert [one.token_ids for one in guided] != [one.token_ids for one in raw]


def test_the_three_ways_say_the_same(embedded_folder):
    """On the real model, two cells: the same tokens, and numbers within 1e-4."""
    cells = [8 * benchmark.TOKENS + 5, 24 * benchmark.TOKENS + 15]
    baseline, lean, engine = (
        Way(name, "float32", 4).run(benchmark.QUESTION, cells, 2).results for name in benchmark.WAYS
    )
    assert all(len(result.token_ids) >= 1 for result in baseline)
    for other in (lean, engine):
        found = difference(other, baseline)
        assert found["different_tokens"] == 0
        assert found["max_probability_difference"] < 1e-4


def test_the_grid_and_the_prompt_are_those_it_reports(embedded_folder):
    way = Way("engine", "float32", 30)
    ids = way.tokenizer(benchmark_ways.CHAT.format(benchmark.QUESTION), add_special_tokens=False).input_ids
    assert len(ids) == benchmark.TOKENS
    assert way.model.config.num_hidden_layers + 1 == benchmark.LAYERS
    long = way.tokenizer(benchmark_ways.CHAT.format(benchmark.LONG_QUESTION), add_special_tokens=False).input_ids
    assert len(long) >= benchmark.LONG_TOKENS >= 4096 / benchmark.LAYERS
    assert (len(way.prompt.input_ids), way.prompt.insert_locations) == (22, (3, 4, 5, 6))


def test_peak_memory_counts_from_when_it_was_last_asked(embedded_folder):
    way = Way("engine", "bfloat16", 4)
    way.peak_memory()
    before = way.peak_memory()
    filled = torch.ones(300 * 2**20, dtype=torch.uint8)
    # Not all of it: what lay free may have been given back to the system meanwhile.
    assert way.peak_memory() >= before + 0.9 * len(filled)
    del filled
    way.peak_memory()
    assert way.peak_memory() < before + 100 * 2**20 or not benchmark_ways._FORGET_PEAK.exists()
