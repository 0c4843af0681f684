"""How often a reader finds a vector's own label among those of all, beside plain insertion of the same vectors.

    python scripts/evaluate_reader.py --reader reader/reader.safetensors --data scripts/examples/topics.csv

Labels are ranked by their log probability behind the prompt. Rows whose column `split` says test are measured; without
such a column all are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.labelled import labelled_vectors
from common.measured_model import Loaded, load
from common.options import MODEL, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.measures import Interpreter
    from transformers.interpretation.readers.selfie_adapter import SelfieAdapter

SAID_TOKENS = 12
"""Of the texts that are compared with the labels."""
PLAIN_LAYER = 2
"""Where vectors are inserted as they are: the package's default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, evaluate, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(parser, *MODEL)
    add = parser.add_argument
    add("--reader", type=Path, required=True, nargs="+", metavar="FILE", help="SelfIE adapters of one layer and prompt")
    add("--data", type=Path, required=True, metavar="FILE", help="as of train_reader.py")
    add("--layer", type=int, metavar="N", help="whose hidden states are read (default: as the reader says)")
    add("--raw", action="store_true", help="prompts are read as they are, not as a user's turn")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parse_options(parser, argv)


def evaluate(arguments: argparse.Namespace) -> int:
    """Check, load, read, measure, print."""
    from transformers.interpretation.vectors.labelled import TEST, read_labelled

    try:
        outputs = {} if arguments.json is None else {"the figures": arguments.json}
        inputs = {f"the reader {path}": path for path in arguments.reader} | {"the data": arguments.data}
        check_files(outputs, inputs | files_of_models(arguments.model))
        readers = [read_adapter(path) for path in arguments.reader]
        table = read_labelled(arguments.data).of(TEST)
        if len(set(table.labels)) < 2:
            raise ValueError(f"{arguments.data}: found {len(set(table.labels))} labels to test, expected two at least")
        loaded = load(arguments)
        layer = arguments.layer if arguments.layer is not None else readers[0].layer
        vectors = labelled_vectors(loaded, table, layer, raw=arguments.raw)
        ways = list(ways_of(readers, loaded, layer))
    except ValueError as error:
        return fail(error, REFUSED)
    labels = list(dict.fromkeys(table.labels))
    print(f"{len(vectors)} vectors, {len(labels)} labels; by chance {1 / len(labels):.1%}", flush=True)
    figures = {}
    for name, interpreter in ways:
        began = time.monotonic()
        figures[name] = measured(interpreter, vectors, layer or 0, table.labels, labels)
        print(f"{name}, {time.monotonic() - began:,.0f} s")
        for what, value in figures[name].items():
            print(f"    {what}: {value}", flush=True)
    if arguments.json is not None:
        content = {name: {what: vars(value) for what, value in found.items()} for name, found in figures.items()}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def read_adapter(path: Path) -> SelfieAdapter:
    """Raises ReaderError."""
    from transformers.interpretation.readers.formats import find_reader
    from transformers.interpretation.readers.reader import ReaderError
    from transformers.interpretation.readers.selfie_adapter import SelfieAdapter

    found = find_reader(path)
    if not isinstance(found, SelfieAdapter):
        raise ReaderError(f"reader {path}: found {found.description}; expected a SelfIE adapter")
    return found


def ways_of(readers: Sequence[SelfieAdapter], loaded: Loaded, layer: int | None) -> Iterator[tuple[str, Interpreter]]:
    """Each reader; the first one as it was before training; and no reader, with the same prompt. Raises ValueError."""
    from transformers.interpretation.engine.settings import InterpretationSettings
    from transformers.interpretation.measures import Interpreter
    from transformers.interpretation.readers.projection import Projection, beginning
    from transformers.interpretation.readers.training import AdapterSettings

    for reader in readers:
        fitted = reader.fit(loaded.model, loaded.tokenizer, None if layer is None else str(layer))
        prompt = fitted.prompt.build(loaded.tokenizer)
        how = InterpretationSettings(**fitted.settings, max_new_tokens=SAID_TOKENS)
        read = Interpreter(loaded.model, loaded.tokenizer, prompt, how, 64, fitted.mapping)
        yield str(reader.path), read
    kind, scale = "scale_only", AdapterSettings().init_scale
    tensors = beginning(kind, readers[-1].hidden, scale=scale, rank=1, factor=0, seed=0)
    untrained = Projection(kind, True, tensors, readers[-1].projection.mean)
    yield f"untrained: less the mean, of norm {scale:g}", replace(read, mapping=untrained)
    plain = replace(read.settings, insert_layer=PLAIN_LAYER)
    yield f"no reader: the vector as it is, at layer {PLAIN_LAYER}", replace(read, mapping=None, settings=plain)


def measured(
    interpreter: Interpreter, vectors, layer: int, own: Sequence[str], labels: Sequence[str]
) -> dict[str, object]:
    """Shares of the vectors, with 95 % intervals."""
    from transformers.interpretation.measures import estimate
    from transformers.interpretation.measures.retrieval import centred, hits, label_scores, shuffled

    right = [labels.index(label) for label in own]
    scores = label_scores(interpreter, vectors, layer, labels)
    said = [one.text.strip().casefold() for one in interpreter(vectors, layer)]
    return {
        "recall@1": estimate(hits(scores, right)),
        "recall@10": estimate(hits(scores, right, 10)),
        "recall@1, scores less the label's mean": estimate(hits(centred(scores), right)),
        "recall@1, another's vector": estimate(hits(shuffled(scores), right)),
        "recall@1, another's vector, scores less the label's mean": estimate(hits(shuffled(centred(scores)), right)),
        "says the label, word for word": estimate([text == label.casefold() for text, label in zip(said, own)]),
    }


if __name__ == "__main__":
    sys.exit(main())
