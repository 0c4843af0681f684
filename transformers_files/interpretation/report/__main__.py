"""`python -m transformers.interpretation.report FILE.csv`: a page, a terminal view or figures of an earlier run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..results import Interpretations, ResultsError, read_csv
from . import answers_figure, grid_figure, show, write_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on stderr that says what is wrong."""
    settings = _parser().parse_args(arguments)
    page = settings.output or settings.csv.with_suffix(".html")
    try:
        results = _with_token_texts(read_csv(settings.csv), settings.csv)
        if len(results) == 0:
            raise ValueError(f"{settings.csv} has no interpretations")
        if settings.show is not None:
            show(results, example=settings.show or None)
        for draw, path in ((grid_figure, settings.grid_figure), (answers_figure, settings.answers_figure)):
            if path:
                _save(draw, results, path)
        if settings.output or not (settings.show is not None or settings.grid_figure or settings.answers_figure):
            write_page(results, page, title=settings.csv.name)
            print(f"{len(results):,} interpretations in {page}")
    except (ResultsError, ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m transformers.interpretation.report", description=__doc__)
    parser.add_argument("csv", type=Path, help="interpretations, as the script wrote them")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="the page (default: beside the CSV)")
    parser.add_argument(
        "--show", nargs="?", const="", metavar="NAME", help="print the grid of one example (or the first)"
    )
    parser.add_argument("--grid-figure", type=Path, metavar="FILE", help="the first grid as .png, .svg or .pdf")
    parser.add_argument("--answers-figure", type=Path, metavar="FILE", help="answers named, by layer, likewise")
    return parser


def _with_token_texts(results: Interpretations, csv: Path) -> Interpretations:
    """With the text of each token, by which words are shaded, if the run's manifest says whose tokenizer made them."""
    from ..manifest import tokenizer_beside

    tokenizer = tokenizer_beside(csv)
    return results if tokenizer is None else results.with_token_texts(tokenizer)


def _save(draw: Callable, results: Interpretations, path: Path) -> None:
    draw(results).savefig(path, dpi=200)
    print(f"figure in {path}")


if __name__ == "__main__":
    sys.exit(main())
