"""The texts of a corpus that activate each of some vectors most: features of a sparse autoencoder, or directions.

    python scripts/find_contexts.py --vectors sae --corpus sae/texts.jsonl --output contexts.jsonl

A SAE's own encoder says how active a feature is; of other vectors it is the dot product with the hidden state.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.features import add_feature_options, find_features
from common.measured_model import load
from common.options import MODEL, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, find, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(parser, *MODEL, "output", output={"default": Path("contexts.jsonl"), "help": "a line for each vector"})
    add_feature_options(parser)
    return parse_options(parser, argv)


def find(arguments: argparse.Namespace) -> int:
    """Check, load, read the corpus once, write."""
    from transformers.interpretation.features.contexts import read_texts, top_contexts
    from transformers.interpretation.features.table import ShownContext, write_contexts

    try:
        inputs = {"the corpus": arguments.corpus, "the vectors": arguments.vectors} | files_of_models(arguments.model)
        check_files({"the contexts": arguments.output}, inputs)
        fitted = find_features(arguments)
        next(read_texts(arguments.corpus, arguments.text_column), None)
        loaded = load(arguments)
        features = fitted(loaded)
        began = time.monotonic()
        texts = read_texts(arguments.corpus, arguments.text_column)
        where = {"layer": features.layer, "place": features.place, "k": arguments.k}
        found = top_contexts(loaded.model, loaded.tokenizer, texts, features.activations, **where)
    except ValueError as error:
        return fail(error, REFUSED)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    shown = (
        (features.first + number, [ShownContext(one.activation, one.pieces(loaded.tokenizer), one.at) for one in best])
        for number, best in enumerate(found.best)
    )
    write_contexts(arguments.output, shown)
    with_any = sum(map(bool, found.best))
    print(f"{arguments.output} in {time.monotonic() - began:,.0f} s: {with_any} of {len(found.best)} vectors have some")
    return 0


if __name__ == "__main__":
    sys.exit(main())
