"""`python -m transformers.interpretation.report.labels FILE.csv`: what a run says of vectors, as labels for others.

    … features.csv --csv labels.csv
    … features.csv --neuronpedia explanations.jsonl --model-id gemma-2-2b --source-id 12-gemmascope-res-16k
    … features.csv --delphi explanations --module layers.12
    … features.csv --compare batch-0.jsonl.gz                 # labels of others, in any of these forms

The table is read row by row, whatever its size. A label is the interpretation in one line; of samples the most frequent
one. Its score is its mean relevancy: how much its words depend on the vector.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from ..results.label_files import Label, LabelsError, csv_writer, delphi_writer, neuronpedia_writer, read_labels
from ..results.record import Record
from ..results.samples import agreement
from ..results.streaming import open_table
from ..runs.csv_writer import files_of
from ..runs.files import check_apart, check_writable
from ..runs.manifest import OutputError, read_manifest
from .grid import mean_relevancy
from .strings import one_line

_WORD = re.compile(r"\w{4,}")
_SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on stderr that says what is wrong."""
    options = _parser().parse_args(arguments)
    outputs = {"the labels": options.csv, "Neuronpedia's file": options.neuronpedia, "delphi's folder": options.delphi}
    outputs = {name: path for name, path in outputs.items() if path is not None}
    try:
        if not outputs and options.compare is None:
            raise LabelsError("nothing to do: give --csv, --neuronpedia, --delphi or --compare")
        if missing := _missing(options):
            raise LabelsError(f"give {' and '.join(missing)}: what is written says whose labels they are")
        for path in (options.csv, options.neuronpedia):
            if path is not None:
                check_writable(path)
        check_apart(outputs, files_of(options.table) | {"the other labels": options.compare})
        others = None if options.compare is None else read_labels(options.compare)
        counts = _write(options, others)
    except (OutputError, ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*counts, sep="\n")
    return 0


def labels_of(table: Path, reading: str | None = None) -> Iterator[Label | None]:
    """The label of each vector of a table, in its order; None where it has no interpretation.

    reading: which interpretation prompt's, `ask` or `ask · What is it?`, where there are several. Raises ValueError.
    """
    only: str | None = None
    several = "a table with several interpretation prompts or questions"
    for key, rows in groupby(open_table(table), key=lambda record: (_reading(record), record.token_idx)):
        records = list(rows)
        if records[0].kind != "vector":
            raise LabelsError(f"{table} has interpretations of prompts; labels are of vectors")
        if reading is None:
            only = only or key[0]
            if key[0] != only:
                raise LabelsError(f'{table} is {several}: choose with --reading, such as --reading "{only}"')
        elif key[0] != reading:
            continue
        only = key[0]
        chosen = records[0] if records[0].sample is None else agreement(records).record
        yield _label(chosen) if chosen.has_interpretation else None
    if only is None:
        raise LabelsError(f"{table} has no interpretations" + ("" if reading is None else f' of "{reading}"'))


def _write(options: argparse.Namespace, others: dict[int, str] | None) -> list[str]:
    """Everything that was asked for, in one pass over the table; what to say about it."""
    written, failed = 0, 0
    pairs: list[tuple[str, str]] = []
    with ExitStack() as files:
        writers = []
        if options.csv is not None:
            writers.append(files.enter_context(csv_writer(options.csv)))
        if options.neuronpedia is not None:
            given = {"model": options.model_id, "source": options.source_id, "explainer": _explainer(options.table)}
            writers.append(files.enter_context(neuronpedia_writer(options.neuronpedia, **given)))
        if options.delphi is not None:
            writers.append(files.enter_context(delphi_writer(options.delphi, module=options.module)))
        for label in labels_of(options.table, options.reading):
            if label is None:
                failed += 1
                continue
            written += 1
            for add in writers:
                add(label)
            if others is not None and label.index in others:
                pairs.append((label.text, others[label.index]))
    without = f", {failed:,} vectors without an interpretation left out" if failed else ""
    lines = [f"{written:,} labels{without}"]
    return lines if others is None else [*lines, _overlap(pairs, options.compare)]


def _missing(options: argparse.Namespace) -> list[str]:
    """The options that are needed as well."""
    wanted = {"--model-id": options.model_id, "--source-id": options.source_id} if options.neuronpedia else {}
    wanted |= {"--module": options.module} if options.delphi else {}
    return [name for name, value in wanted.items() if not value]


def _overlap(pairs: Sequence[tuple[str, str]], path: Path) -> str:
    """How often two labels of one vector share a word, and as a control two of different vectors."""
    if not pairs:
        return f"compared with {path}: it has no label of these vectors"
    ours, theirs = zip(*pairs)
    shuffled = random.Random(_SEED).sample(theirs, len(theirs))
    found, control = (sum(map(_share_a_word, ours, other)) / len(ours) for other in (theirs, shuffled))
    return (
        f"compared with {path}: it has {len(ours):,} of these vectors; a word of four letters or more is in both "
        f"labels of {100 * found:.1f} %, and with its labels shuffled of {100 * control:.1f} %"
    )


def _label(record: Record) -> Label:
    """Without the colon that follows the word in some interpretation prompts."""
    text = " ".join(record.interpretation_text.split()).lstrip(": ")
    return Label(record.token_idx, text, mean_relevancy(record))


def _reading(record: Record) -> str:
    asked = "" if record.question is None else f" · {one_line(record.question)}"
    return f"{record.repeat_prompt_name}{asked}"


def _share_a_word(one: str, other: str) -> bool:
    mine, its = ({*_WORD.findall(text.casefold())} for text in (one, other))
    return bool(mine & its)


def _explainer(table: Path) -> str | None:
    """The model that wrote the labels, if the table's manifest says so."""
    manifest = read_manifest(table)
    return None if manifest is None else Path(str(manifest.about.get("model"))).name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m transformers.interpretation.report.labels", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("table", type=Path, help="interpretations of vectors, .csv or .parquet")
    add("--reading", metavar="NAME", help="which interpretation prompt's, where there are several: ask · What is it?")
    add("--csv", type=Path, metavar="FILE.csv", help="write index,label,score")
    add("--neuronpedia", type=Path, metavar="FILE", help="write Neuronpedia's explanations, .jsonl, .jsonl.gz or .json")
    add("--model-id", default="", metavar="NAME", help="of the model at Neuronpedia, such as gemma-2-2b")
    add("--source-id", default="", metavar="NAME", help="of the vectors there, such as 12-gemmascope-res-16k")
    add("--delphi", type=Path, metavar="FOLDER", help="write delphi's explanations")
    add("--module", default="", metavar="NAME", help="of the hook point there, such as layers.12")
    add("--compare", type=Path, metavar="FILE|FOLDER", help="labels of others, in any of these forms")
    return parser


if __name__ == "__main__":
    sys.exit(main())
