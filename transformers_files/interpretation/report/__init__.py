"""Interpretations to look at: a page, a terminal view, figures.

    from transformers.interpretation.report import answers_figure, grid_figure, show, sweep_figure, write_page
    write_page(results, "interpretations.html")
    show(results)
    grid_figure(results).savefig("grid.pdf")

From a CSV: `python -m transformers.interpretation.report interpretations.csv`.
"""

from __future__ import annotations

from .figures import answer_shares, answers_figure, grid_figure, sweep_figure, sweep_values
from .page import notebook_view, page, write_page
from .terminal import show

__all__ = [
    "answer_shares",
    "answers_figure",
    "grid_figure",
    "notebook_view",
    "page",
    "show",
    "sweep_figure",
    "sweep_values",
    "write_page",
]
