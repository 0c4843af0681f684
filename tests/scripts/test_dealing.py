"""The simulation of how chunks are dealt: small cases by hand, and the properties that large ones must have."""

from __future__ import annotations

import json
import re

import dealing
import pytest
from dealing import Costs, claimed, in_turn, main


def test_who_is_free_takes_the_next():
    costs = [4.0, 1.0, 1.0, 1.0, 3.0]
    assert claimed(costs, 1) == 10
    assert claimed(costs, 2) == 6  # 4 + nothing more; 1 + 1 + 1 + 3
    assert claimed(costs, 9) == 4
    assert in_turn(costs, 2) == 8  # 4 + 1 + 3
    assert in_turn(costs, 5) == 4


def test_costs_are_the_line_times_what_was_measured():
    costs = Costs({10: [1.0, 3.0], 20: [3.0]})  # 1 s + n * 0.1 s
    assert (costs.fixed, costs.slope) == (pytest.approx(1), pytest.approx(0.1))
    assert costs.ratios == pytest.approx([0.5, 1.5, 1])
    drawn = costs.draw([30] * 200, 0)
    assert {round(cost, 6) for cost in drawn} == {2, 4, 6}


@pytest.mark.parametrize("fixed", [0.0, 6.0])
def test_ranks_are_busy_for_95_percent_of_the_time(tmp_path, capsys, fixed):
    """Efficiency whether small chunks cost more or not. Equal chunks, the other columns, do not reach it."""
    path = tmp_path / "costs.json"
    path.write_text(
        json.dumps({size: [(fixed + 0.09 * size) * ratio for ratio in (0.95, 1, 1.05)] for size in dealing.SIZES})
    )
    assert main([str(path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\| [\d,]+ \|", line)]
    assert [row.split("|")[1].strip() for row in rows] == ["1", "8", "64", "1,024"]
    efficiencies = [[float(text) for text in re.findall(r"([\d.]+)%", row)] for row in rows]
    assert all(row[0] >= 95 for row in efficiencies)
    assert max(efficiencies[-1][1:]) < 95
