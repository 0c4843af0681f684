"""`python -m transformers.interpretation.report FILE.csv`: a page, a terminal view or figures of an earlier run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..features.table import read_contexts
from ..results.calibration import BUILT_IN_CALIBRATION, Calibration
from ..results.record import Record, with_token_texts
from ..results.streaming import MOST_CELLS, Examples, Portion, read_example, read_portion
from ..runs.csv_writer import files_of
from ..runs.files import check_apart, check_writable
from ..runs.manifest import OutputError, settings_beside, tokenizer_beside
from . import answers_figure, grid_figure, show, sweep_figure, write_page
from .page import check_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on stderr that says what is wrong."""
    options = _parser().parse_args(arguments)
    page = options.output or options.csv.with_suffix(".html")
    figures = {
        "the grid figure": (grid_figure, options.grid_figure),
        "the answers figure": (answers_figure, options.answers_figure),
        "the sweep figure": (sweep_figure, options.sweep_figure),
    }
    outputs = {name: path for name, (_, path) in figures.items() if path is not None}
    if options.output or (options.show is None and not outputs):
        outputs["the page"] = page
    inputs = {"the calibration": options.calibration, "the contexts": options.contexts}
    try:
        for path in outputs.values():
            check_writable(path)
        check_apart(outputs, files_of(options.csv) | inputs)
        if "the page" in outputs:
            check_page(page)
        calibration = Calibration.read(options.calibration) if options.calibration else BUILT_IN_CALIBRATION
        contexts = None if options.contexts is None else read_contexts(options.contexts)
        if options.show is not None:
            shown = _with_token_texts(_shown(options), options.csv)
            show(shown, min_trust=options.min_trust, calibration=calibration)
        if not outputs:
            return 0
        portion = _portion(options)
        results = _with_token_texts(portion.records, options.csv)
        for name, (draw, path) in figures.items():
            if name in outputs:
                _save(draw, results, path)
        if "the page" in outputs:
            made = settings_beside(options.csv)
            write_page(
                results,
                page,
                title=options.csv.name,
                note=portion.note,
                reading=None if made is None else made.description,
                calibration=calibration,
                contexts=contexts,
            )
            print(f"{len(results):,} interpretations in {page}")
        if portion.note:
            print(portion.note)
    except (OutputError, ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _portion(options: argparse.Namespace) -> Portion:
    """What pages and figures show. Raises ValueError if that is nothing."""
    if options.cells < 1:
        raise ValueError(f"cells is {options.cells}: it must be at least 1")
    examples = Examples.read(options.examples) if options.examples else Examples()
    portion = read_portion(options.csv, examples, most_cells=options.cells)
    if len(portion.records) == 0:
        raise ValueError(f"{options.csv} has no interpretations" + (" of such examples" if portion.note else ""))
    return portion


def _shown(options: argparse.Namespace) -> Sequence[Record]:
    """What is printed: the example that is named, else the first of those chosen."""
    return read_example(options.csv, options.show) if options.show else _portion(options).records


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m transformers.interpretation.report", description=__doc__)
    parser.add_argument("csv", type=Path, help="interpretations, as the script wrote them")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="the page (default: beside the CSV)")
    parser.add_argument(
        "--show", nargs="?", const="", metavar="NAME", help="print the grid of one example (or the first)"
    )
    parser.add_argument(
        "--examples", metavar="RANGE", help="of the file's examples, from 0: 20:40, 40:, or ::100 for every hundredth"
    )
    parser.add_argument("--cells", type=int, default=MOST_CELLS, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument(
        "--min-trust", type=float, default=0.0, metavar="X", help="of --show: hide cells below that trust, 0 to 1"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE.json", help="of trust, as evaluate_interpretations.py measured it"
    )
    parser.add_argument(
        "--contexts",
        type=Path,
        metavar="FILE.jsonl",
        help="of vectors: the texts that activate them, as find_contexts.py wrote them, for the page",
    )
    parser.add_argument("--grid-figure", type=Path, metavar="FILE", help="the first grid as .png, .svg or .pdf")
    parser.add_argument("--answers-figure", type=Path, metavar="FILE", help="answers named, by layer, likewise")
    parser.add_argument(
        "--sweep-figure", type=Path, metavar="FILE", help="source layers × insert layers of scripts/sweep_layers.py"
    )
    return parser


def _with_token_texts(results: Sequence[Record], csv: Path) -> Sequence[Record]:
    """With the text of each token, by which words are shaded, if the run's manifest says whose tokenizer made them."""
    tokenizer = tokenizer_beside(csv)
    return results if tokenizer is None else with_token_texts(results, tokenizer)


def _save(draw: Callable, results: Sequence[Record], path: Path) -> None:
    draw(results).savefig(path, dpi=200)
    print(f"figure in {path}")


if __name__ == "__main__":
    sys.exit(main())
