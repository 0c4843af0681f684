"""Every source layer's embeddings inserted at every target layer: a table of interpretations and a heatmap.

    python scripts/sweep_layers.py --layers 0:31:3 --insert-layers 0:30:3      # the small model, the demo's examples

The heatmap shows how many interpretations name their example's answer, or without answers the mean relevancy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.measured_model import load
from common.options import DEMO_EXAMPLES, MODEL, ONE_PROMPT, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, sweep, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    how = ("interpretation_prompts", "replacing_mode", "overlay_strength", "max_new_tokens", "batch_size")
    add_options(
        parser,
        *MODEL,
        *("examples", "layers", "tokens", *how, "output"),
        examples=DEMO_EXAMPLES,
        layers={"default": "all"},
        tokens={"default": "last"},
        interpretation_prompts=ONE_PROMPT,
        max_new_tokens={"default": 8},
        output={"default": Path("sweep.csv"), "metavar": "FILE.csv", "help": "the table to write"},
    )
    add = parser.add_argument
    add("--insert-layers", default="all", help="of the n_layers decoder layers, likewise (default: all)")
    add("--figure", type=Path, metavar="FILE", help=".png, .svg or .pdf (default: next to the table, .png)")
    return parse_options(parser, argv)


def sweep(arguments: argparse.Namespace) -> int:
    """Check, load, sweep, write."""
    from tqdm import tqdm
    from transformers.interpretation import read_examples, sweep_layers
    from transformers.interpretation.errors.problems import ProblemsError
    from transformers.interpretation.report import sweep_figure

    inputs = {"the examples": arguments.examples, "the interpretation prompt": Path(arguments.interpretation_prompt)}
    inputs |= files_of_models(arguments.model)
    try:
        figure = arguments.figure or arguments.output.with_suffix(".png")
        existing = [path for path in (arguments.output, figure) if path.exists()]
        if existing:
            raise ProblemsError([f"{path} exists; name another file or move it away" for path in existing])
        check_files({"the table": arguments.output, "the figure": figure}, inputs)
        examples = read_examples(arguments.examples)
        loaded = load(arguments)
        with tqdm(unit="layer") as bar:

            def progress(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            how = ("interpretation_prompt", "replacing_mode", "overlay_strength", "max_new_tokens", "batch_size")
            names = ("layers", "insert_layers", "tokens", *how)
            choices = {name: getattr(arguments, name) for name in names}
            records = sweep_layers(loaded.model, loaded.tokenizer, examples, progress=progress, **choices)
        records.to_csv(arguments.output)
        sweep_figure(records).savefig(figure, dpi=200)
    except (ValueError, ImportError, OSError) as error:
        return fail(error, REFUSED)
    print(f"{len(records):,} interpretations in {arguments.output}, heatmap in {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
