"""The figures and tables of an evaluation."""

from __future__ import annotations

from common.evaluation_views import recovery_figure, tables
from matplotlib.figure import Figure


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}


def test_fitted_lenses_are_lines_beside_the_logit_lens():
    lenses = {"logit lens top-1": 0.1, "tuned lens top-1": 0.2, "jacobian lens top-1": 0.3}
    layers = {
        layer: {"net": share(0.5), **{name: share(value + layer / 100) for name, value in lenses.items()}}
        for layer in (4, 8)
    }
    figure = Figure()
    recovery_figure(figure, {"layers": layers}, 9)
    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert drawn == {
        "interpretation, net of guesses": [0.5, 0.5],
        "logit lens, top 1": [0.1 + 0.04, 0.1 + 0.08],
        "tuned lens, top 1": [0.2 + 0.04, 0.2 + 0.08],
        "Jacobian lens, top 1": [0.3 + 0.04, 0.3 + 0.08],
    }


def test_patching_measures_are_printed():
    attributes = {name: share(0.5) for name in ("net", "named", "by other", "linear probe")}
    steps = {name: share(0.4) for name in ("net", "named", "by other", "composed")}
    measured = {
        "interpretation prompt": {"name": "describe"},
        "settings": {"insert_layer": 2},
        "half": "held-out",
        "attributes of subjects": {"layers": {3: attributes}},
        "two steps": {"pairs": 9, "layers": {3: {1: steps, 2: {**steps, "net": share(0.6)}}}},
    }
    first, second = tables(measured)
    assert first.splitlines()[0] == (
        "attributes of subjects, held-out half, questions of their own, each state at its own layer"
    )
    assert first.splitlines()[2].split("]") == ["        3     50% [40%, 60%", *["     50% [40%, 60%"] * 3, ""]
    assert second.splitlines() == [
        "two steps, 9 questions; both in one prompt: 40% [30%, 50%] answered",
        "     from    into 1    into 2",
        "        3       40%       60%",
        "net of another question's state; the best: 60% [50%, 70%]",
    ]
