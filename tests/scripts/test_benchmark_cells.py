"""What the benchmark of many cells counts; not how fast anything is."""

from __future__ import annotations

import re

import benchmark_cells


def test_few_and_many_take_turns(monkeypatch, capsys):
    monkeypatch.setattr(benchmark_cells, "FEW", 100)
    monkeypatch.setattr(benchmark_cells, "CHUNK_CELLS", 60)
    assert benchmark_cells.main(["--cells", "300"]) == 0
    told = capsys.readouterr()
    few, many, peak = told.out.splitlines()
    turns = len(told.err.splitlines())
    assert re.fullmatch(rf"120 cells: [\d,]+/s \(median of {turns}\)", few)
    assert re.fullmatch(r"360 cells: [\d,]+/s, \d\.\d\d times as fast", many)
    assert re.fullmatch(r"peak memory [\d,]+ MB", peak)
    assert turns > 3
