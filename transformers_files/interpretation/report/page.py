"""One HTML page that shows everything: no network, no build step, nothing in the data can run.

Texts that the reader needs before any script runs (prompts, answers) are written by jinja2 with autoescaping. The cells
travel as JSON in a data element and reach the document as text nodes only. A content security policy lets exactly the
page's own script and style work, by their hashes, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..features.table import ShownContext
from ..results.calibration import BUILT_IN_CALIBRATION, Calibration
from ..results.record import Record
from ..results.samples import Agreement
from ..runs.manifest import OutputError
from .grid import ExampleGrid, PromptGrid, by_example, examples_of, mean_relevancy, names_answer, relevancy_scale
from .palette import STEPS, ink, ramp
from .strings import encodable, excerpt

_HERE = Path(__file__).parent
_OVERVIEW_LENGTH = 200
_NOTEBOOK_CELLS = 4000
_CONTEXTS_SHOWN = 5
"""Of each vector, so that the page's size does not follow that of the file of contexts."""
_MARK = b"transformers.interpretation.report"
"""In the head of every page."""
_NOT_ABLE_TO_END_AN_ELEMENT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(
    records: Sequence[Record],
    *,
    title: str = "Interpretations",
    note: str | None = None,
    reading: str | None = None,
    calibration: Calibration = BUILT_IN_CALIBRATION,
    contexts: Mapping[int, Sequence[ShownContext]] | None = None,
) -> str:
    """The page as text. Its size is about 15 bytes per generated token: half a kilobyte for a cell of 30 tokens.

    note: what the reader should know of the records as a whole, such as how many there are beside them.
    reading: how embeddings were interpreted, as `InterpretationSettings.description` says it.
    calibration: of the trust below which the reader can hide cells.
    contexts: by a vector's index, the texts that activate it, the strongest first; five are shown at most.

    Raises ValueError for contexts of none of the vectors.
    """
    examples = examples_of(records)
    style = palette_style() + asset("page.css")
    script = asset("cells.js", "grid.js", "table.js", "page.js")
    return render(
        "page.html.j2",
        title=title,
        note=note,
        reading=reading,
        examples=examples,
        n_cells=len(records),
        n_layers=len({record.layer_idx for record in records}),
        scale=relevancy_scale(records),
        levels=sorted({round(1000 * share) for share in calibration.shares})[1:],
        calibration=calibration,
        style=style,
        script=script,
        style_hash=content_hash(style),
        script_hash=content_hash(script),
        data=data_json(records, calibration, contexts),
    )


def write_page(
    records: Sequence[Record],
    path: str | Path,
    *,
    title: str = "Interpretations",
    note: str | None = None,
    reading: str | None = None,
    calibration: Calibration = BUILT_IN_CALIBRATION,
    contexts: Mapping[int, Sequence[ShownContext]] | None = None,
) -> None:
    """Write the page, in UTF-8, to `path`: whole or not at all, by way of a file named `….tmp` beside it."""
    text = page(records, title=title, note=note, reading=reading, calibration=calibration, contexts=contexts)
    temporary = Path(f"{path}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_page(path: Path) -> None:
    """Raise OutputError for a file that is there and no page of ours: it may be somebody's work."""
    if path.is_file():
        with open(path, "rb") as file:
            if _MARK not in file.read(4096):
                raise OutputError(f"{path} exists and is no report; name another or move it away")


def notebook_view(records: Sequence[Record]) -> str:
    """The page in a frame of its own, where neither it nor the notebook can change the other, and a plain table.

    The table is what remains where a code host removes frames and scripts. Of a large result only the first examples
    are shown: a notebook is stored with its outputs.
    """
    examples = examples_of(records)
    shown = _first_records(records)
    return render(
        "notebook.html.j2",
        n_records=len(records),
        n_examples=len(examples),
        n_shown=len(examples_of(shown)),
        example=examples[0] if examples else None,
        page=page(shown),
        height=min(860, 480 + 26 * max((len(example.layers) for example in examples), default=0)),
    )


def data_json(
    records: Sequence[Record],
    calibration: Calibration = BUILT_IN_CALIBRATION,
    contexts: Mapping[int, Sequence[ShownContext]] | None = None,
) -> str:
    """The cells as JSON that is safe inside a script element: no <, > or &, nothing beyond ASCII."""
    data = {
        "scale": round(1000 * relevancy_scale(records)),
        "steps": STEPS,
        "examples": [_example_data(example, calibration) for example in examples_of(records)],
    }
    if contexts is not None:
        data["contexts"] = _contexts_data(records, contexts)
    # ASCII only: U+2028, U+2029 and lone surrogates are written as escapes, which JSON.parse takes.
    return script_safe(json.dumps(data, ensure_ascii=True, separators=(",", ":")))


def script_safe(json_text: str) -> str:
    """JSON in ASCII that cannot end the script element that it stands in."""
    return json_text.translate(_NOT_ABLE_TO_END_AN_ELEMENT)


def lowest_layer_naming(example: ExampleGrid) -> int | None:
    """The lowest layer at which some interpretation of a prompt token names the example's answer."""
    layers = [
        record.layer_idx
        for reading in example.readings
        for record in reading.records.values()
        if record.kind != "output" and record.layer_idx is not None and names_answer(record)
    ]
    return min(layers, default=None)


def _first_records(records: Sequence[Record]) -> list[Record]:
    """Those of as many whole examples as a notebook should hold, and of one at least."""
    chosen: list[Record] = []
    for more in by_example(records).values():
        if chosen and len(chosen) + len(more) > _NOTEBOOK_CELLS:
            break
        chosen += more
    return chosen


def _contexts_data(
    records: Sequence[Record], contexts: Mapping[int, Sequence[ShownContext]]
) -> dict[int, list[list[str]]]:
    """Index of a vector → [text before, the token that activates it, text behind, activation] of each context."""
    vectors = sorted({record.token_idx for record in records if record.kind == "vector"} & contexts.keys())
    if not vectors:
        raise ValueError("the contexts are of none of the vectors that are shown")
    return {
        vector: [
            [
                "".join(one.pieces[: one.at]),
                one.pieces[one.at],
                "".join(one.pieces[one.at + 1 :]),
                f"{one.activation:.3g}",
            ]
            for one in contexts[vector][:_CONTEXTS_SHOWN]
        ]
        for vector in vectors
    }


def _example_data(example: ExampleGrid, calibration: Calibration) -> dict[str, Any]:
    return {
        "name": example.name,
        "columns": [[column.token_idx, column.text, column.source] for column in example.columns],
        "layers": list(example.layers),
        "readings": [_reading_data(reading, calibration) for reading in example.readings],
    }


def _reading_data(reading: PromptGrid, calibration: Calibration) -> dict[str, Any]:
    agreements = reading.agreements
    cells = [cell_data(record, calibration, agreements.get(cell)) for cell, record in reading.records.items()]
    return {"label": reading.label, "cells": cells}


def cell_data(record: Record, calibration: Calibration, agreement: Agreement | None = None) -> list[Any]:
    """[layer, token, mean relevancy, texts of the tokens, relevancies, probabilities, trust], numbers in thousandths.

    Where the tokens' texts are not known, the whole text stands in their place. Of a cell with samples two whole
    numbers follow: how many say what the record says, and how many there are. A cell that went wrong is
    [layer, token, status].
    """
    cell = [record.layer_idx, record.token_idx]
    if not record.has_interpretation:
        return [*cell, record.status]
    weights = record.interpretation_weights
    known = len(record.interpretation_tokens) == len(weights)
    texts = list(record.interpretation_tokens) if known else record.interpretation_text
    numbers = [[_thousandths(number) for number in column] for column in (weights, record.interpretation_prob)]
    trust = _thousandths(calibration.trust(weights))
    counts = [] if agreement is None else [agreement.alike, agreement.samples]
    return [*cell, _thousandths(mean_relevancy(record)), texts, *numbers, trust, *counts]


def _thousandths(number: float | None) -> int | None:
    return None if number is None else round(1000 * number)


def palette_style() -> str:
    """The ramp as custom properties: --r0 … the ground and --k0 … the ink on it, each for a light and a dark screen."""
    lines = []
    for step, (light, dark) in enumerate(zip(ramp(dark=False), ramp(dark=True))):
        lines.append(f"--r{step}:light-dark({light},{dark});--k{step}:light-dark({ink(light)},{ink(dark)});")
    classes = "".join(f".r{step}{{background:var(--r{step});color:var(--k{step})}}" for step in range(STEPS))
    ends = [100 * step / STEPS for step in range(STEPS + 1)]
    gradient = ",".join(f"var(--r{step}) {ends[step]:.1f}% {ends[step + 1]:.1f}%" for step in range(STEPS))
    return f":root{{{''.join(lines)}--ramp:linear-gradient(to right,{gradient})}}\n{classes}\n"


def render(template: str, *, folder: Path = _HERE, **values: Any) -> str:
    """A template of that folder; values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["excerpt"] = lambda text: excerpt(text, _OVERVIEW_LENGTH)
    environment.filters["lowest_layer_naming"] = lowest_layer_naming
    return encodable(environment.get_template(template).render(**values))


def asset(*names: str) -> str:
    """Files of this folder, one after the other."""
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def content_hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
