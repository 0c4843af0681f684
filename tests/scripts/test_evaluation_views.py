"""What stands in the figures of an evaluation."""

from __future__ import annotations

from common.evaluation_views import recovery_figure
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
