"""Score what features are called, without another model as a judge: by detection and by generation, with controls.

    python -m transformers.interpretation.report.labels features.csv --csv labels.csv      # of interpretations
    python scripts/score_labels.py --vectors sae --corpus sae/texts.jsonl --labels labels.csv --output scores.csv

Labels are read in any form that `report.labels` writes. Also written: a page of the features, the best scored first,
with the texts that activate them, and with matplotlib a figure. Intervals are 95 % bootstrap intervals over features.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.features import add_feature_options, draw, find_features
from common.measured_model import load
from common.options import MODEL, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

KINDS = ("detection", "generation")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, score, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(parser, *MODEL, "output", output={"default": Path("scores.csv"), "help": "a row for each label"})
    add_feature_options(parser)
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE|FOLDER", help="what the vectors are called")
    return parse_options(parser, argv)


def score(arguments: argparse.Namespace) -> int:
    """Check, load, read the corpus once, score, write."""
    from transformers.interpretation.features.contexts import read_texts, top_contexts
    from transformers.interpretation.features.label_scores import means, score_labels
    from transformers.interpretation.features.table import ShownContext, write_scores
    from transformers.interpretation.report.features import write_features_page
    from transformers.interpretation.results.label_files import read_labels

    page, figure = (arguments.output.with_suffix(suffix) for suffix in (".html", ".png"))
    try:
        inputs = {"the corpus": arguments.corpus, "the vectors": arguments.vectors, "the labels": arguments.labels}
        outputs = {"the scores": arguments.output, "the page": page, "the figure": figure}
        check_files(outputs, inputs | files_of_models(arguments.model))
        labels = read_labels(arguments.labels)
        fitted = find_features(arguments)
        loaded = load(arguments)
        features = fitted(loaded)
        chosen = {index - features.first: text for index, text in labels.items()}
        chosen = {number: text for number, text in chosen.items() if 0 <= number < len(features.names)}
        began = time.monotonic()
        texts = read_texts(arguments.corpus, arguments.text_column)
        where = {"layer": features.layer, "place": features.place}
        model, tokenizer = loaded.model, loaded.tokenizer
        contexts = top_contexts(model, tokenizer, texts, features.activations, k=arguments.k, **where)
        scores = score_labels(model, tokenizer, chosen, contexts, features.activations, on_label=tell, **where)
    except ValueError as error:
        return fail(error, REFUSED)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_scores(arguments.output, [one.moved(features.first) for one in scores])
    shown = {
        one.index: [
            ShownContext(context.activation, context.pieces(tokenizer), context.at)
            for context in contexts.best[one.index]
        ]
        for one in scores
    }
    write_features_page(page, scores, shown, features.names, first=features.first, title=f"Features of {loaded.name}")
    found = means(scores)
    print(f"{'':>12}{'label':>20}{'shuffled':>20}{'random label':>20}")
    for kind in KINDS:
        row = [found.get(name) for name in (kind, f"{kind}_shuffled", f"{kind}_random")]
        print(f"{kind:>12}" + "".join(f"{'–' if one is None else str(one):>20}" for one in row))
    written = ", ".join(map(str, [arguments.output, page, *draw(figure, scores)]))
    print(f"{written} in {time.monotonic() - began:,.0f} s: {len(scores)} labels")
    return 0


def tell(number: int) -> None:
    """Now and then."""
    if number % 16 == 15:
        print(f"{number + 1} labels scored", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
