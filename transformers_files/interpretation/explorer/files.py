"""What can be downloaded: tables, a report page, and the lines of Python that give the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..mapping.affine import AffineMap
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from ..report.page import page
from ..results.csv_table import csv_header, csv_rows
from ..results.parquet import encode, write_table
from ..results.record import Record
from .defaults import Defaults
from .queries import CellsQuery


@dataclass(frozen=True)
class Answer:
    """What a file is made of."""

    query: CellsQuery
    model: str
    """Its name."""
    spec: InterpretationPromptSpec
    """What the query's cells are interpreted with."""
    dtype: str
    """Of the model, as torch names it: "torch.bfloat16"."""
    records: Sequence[Record] = ()
    defaults: Defaults = field(default_factory=Defaults)
    """What the server was started with."""


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    suffix: str
    media_type: str
    write: Callable[[Answer], bytes]
    needs_records: bool = True


def _csv(answer: Answer) -> bytes:
    return (csv_header() + csv_rows(answer.records)).encode("utf-8", "replace")


def _parquet(answer: Answer) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        write_table(path, [encode(answer.records)])
        return path.read_bytes()


def _page(answer: Answer) -> bytes:
    reading = answer.query.settings().description
    return page(answer.records, title=f"{answer.model}: interpretations", reading=reading).encode()


def _python(answer: Answer) -> bytes:
    """The call of `interpret` that gives the query's cells."""
    defaults = answer.defaults
    usual = dict(defaults.settings) if defaults.reader is None else {**defaults.settings, "layers": defaults.layers}
    chosen = {
        name: value
        for name, value in answer.query.model_dump().items()
        if value != usual.get(name, type(answer.query).model_fields[name].default)
    }
    prompt = chosen.pop("prompt", "")
    chosen.pop("format", None)
    if defaults.reader is None and defaults.adapter is not None:
        chosen["reader_adapter"] = defaults.adapter.name
    if answer.spec.question is not None and answer.spec.name != usual["interpretation_prompt"]:
        chosen["interpretation_prompt"] = answer.spec.name
    imports = ["interpret"]
    if answer.spec.name not in defaults.prompts:
        imports.append("InterpretationPromptSpec")
        described = {one.name: getattr(answer.spec, one.name) for one in fields(answer.spec) if one.init}
        described.pop("question")  # `interpret` puts it in
        arguments = ", ".join(f"{name}={value!r}" for name, value in described.items() if value)
        chosen["interpretation_prompt"] = _Code(f"InterpretationPromptSpec({arguments})")
    if defaults.reader is not None:
        return _program(answer, imports, prompt, _with_reader(answer, chosen), READER_IMPORT)
    more = ""
    if defaults.maps is not None:
        load, more = ("AffineMap.load", "") if isinstance(defaults.mapping, AffineMap) else ("load_maps", MAPS_IMPORT)
        imports += [] if more else ["AffineMap"]
        chosen["mapping"] = _Code(f"{load}({str(defaults.maps.path)!r})")
    arguments = "".join(f",\n    {name}={value!r}" for name, value in chosen.items())
    return _program(answer, imports, prompt, arguments, more)


def _with_reader(answer: Answer, chosen: dict[str, Any]) -> str:
    """Arguments: those that the reader sets, and over them what the client has chosen."""
    name, layers = answer.defaults.reader_name, str(chosen.pop("layers", answer.defaults.layers))
    more = "".join(f",\n    {key!r}: {value!r}" for key, value in chosen.items())
    return f",\n    **find_reader({name!r}).fit(model, tokenizer, {layers!r}).options" + (
        f" | {{{more.lstrip(',')},\n    }}" if more else ""
    )


def _program(answer: Answer, imports: list[str], prompt: str, arguments: str, more: str = "") -> bytes:
    return (
        "import torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"from transformers.interpretation import {', '.join(imports)}\n{more}\n"
        f"name = {answer.model!r}\n"
        f"model = AutoModelForCausalLM.from_pretrained(name).to({answer.dtype})\n"
        "tokenizer = AutoTokenizer.from_pretrained(name)\n"
        f"results = interpret(model, tokenizer, {prompt!r}{arguments})\n"
        "print(results.dataframe())\n"
    ).encode()


MAPS_IMPORT = "from transformers.interpretation.translator import load_maps\n"
READER_IMPORT = "from transformers.interpretation.readers.formats import find_reader\n"


class _Code(str):
    """Shown as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


FORMATS = {
    "csv": Format("csv", "text/csv; charset=utf-8", _csv),
    "parquet": Format("parquet", "application/vnd.apache.parquet", _parquet),
    "page": Format("html", "text/html; charset=utf-8", _page),
    "python": Format("py", "text/x-python; charset=utf-8", _python, needs_records=False),
}
"""By the name that clients give."""
