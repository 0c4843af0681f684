"""Labels of vectors as others write and read them: Neuronpedia, delphi, a plain CSV.

    write_labels = neuronpedia_writer(path, model="gemma-2-2b", source="12-gemmascope-res-16k", explainer=None)
    with write_labels as add:
        add(Label(17, "a big cat", 0.4))

    read_labels(path)        # {17: "a big cat"}, of a file or folder in any of these forms

- Neuronpedia (github.com/hijohnnylin/neuronpedia, its exports and utils/neuronpedia-utils): JSON lines, or a JSON list,
  of objects with modelId, layer (the source's name), index (as text), description, typeName and explanationModelName;
  exports are `batch-0.jsonl.gz`, …
- delphi (github.com/EleutherAI/delphi, `explainer_postprocess` and `explanation_loader`): a folder with a file
  `MODULE_latentINDEX.txt` for each, whose content is the text as JSON.
- CSV: `index,label,score`.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

_LATENT = re.compile(r".*_latent(\d+)\.txt")


class LabelsError(ValueError):
    """A file that holds no labels, or a place where none can be written."""


@dataclass(frozen=True)
class Label:
    """What is said of one vector."""

    index: int
    """Of the vector in its file."""
    text: str
    score: float | None = None


Add = Callable[[Label], None]


@contextmanager
def csv_writer(path: Path) -> Iterator[Add]:
    """Whole, or not at all."""
    with _whole(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("index", "label", "score"))
        yield lambda label: rows.writerow((label.index, label.text, _rounded(label.score)))


@contextmanager
def neuronpedia_writer(path: Path, *, model: str, source: str, explainer: str | None) -> Iterator[Add]:
    """Whole, or not at all: lines in `.jsonl` or `.jsonl.gz`, a list in `.json`.

    model, source: as Neuronpedia calls them. explainer: the model that wrote the labels. What its database makes up
    itself, such as ids, is left out; so is the score, for which it has a table of its own.
    """
    is_list = path.suffix == ".json"
    with _whole(path) as file:
        separator = "[\n" if is_list else ""

        def add(label: Label) -> None:
            nonlocal separator
            given = {"modelId": model, "layer": source, "index": str(label.index), "description": label.text}
            line = json.dumps(given | {"typeName": None, "explanationModelName": explainer}, ensure_ascii=False)
            file.write(f"{separator}{line}" if is_list else f"{line}\n")
            separator = ",\n"

        yield add
        if is_list:
            file.write("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def delphi_writer(folder: Path, *, module: str) -> Iterator[Add]:
    """Whole, or not at all; the folder must not be there yet. module: the hook point's name, such as `layers.12`."""
    if folder.exists():
        raise LabelsError(f"{folder} is there already; name a folder that is not")
    name = module.replace("/", "--")
    making = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield lambda label: _write_json(making / f"{name}_latent{label.index}.txt", label.text)
        os.replace(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def read_labels(path: Path) -> dict[int, str]:
    """By the vector's index, in any of the forms; of several of one vector the first counts. Raises LabelsError."""
    try:
        found: dict[int, str] = {}
        for index, text in _read(path):
            found.setdefault(index, text)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise LabelsError(f"cannot read labels {path}: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise LabelsError(f"labels {path}: there are none")
    return found


def _read(path: Path) -> Iterator[tuple[int, str]]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if (latent := _LATENT.fullmatch(file.name)) is not None:
                yield int(latent[1]), _text(_json(file.read_text(encoding="utf-8"), file), file)
            elif file.name.endswith((".jsonl", ".jsonl.gz")):
                yield from _read(file)
    elif path.suffix == ".csv":
        yield from _csv(path)
    elif path.suffix == ".json":
        content = _json(path.read_text(encoding="utf-8"), path)
        content = content.get("explanations") if isinstance(content, Mapping) else content
        if not isinstance(content, list):
            raise LabelsError(f"labels {path}: expected a list of explanations")
        for number, one in enumerate(content, start=1):
            yield _explanation(one, f"{path}, explanation {number}")
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield _explanation(_json(line, where), where)
    else:
        raise LabelsError(
            f"labels {path}: expected .csv, .jsonl, .jsonl.gz, .json, or a folder of MODULE_latentINDEX.txt"
        )


def _csv(path: Path) -> Iterator[tuple[int, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"index", "label"} <= {*(rows.fieldnames or ())}:
            raise LabelsError(f"labels {path}: expected columns index and label")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            yield _index(row["index"], where), _text(row["label"], where)


def _explanation(content: Any, where: str) -> tuple[int, str]:
    if not isinstance(content, Mapping):
        raise LabelsError(f"labels {where}: expected an object with index and description")
    return _index(content.get("index"), where), _text(content.get("description"), where)


def _index(value: Any, where: str) -> int:
    """It is text in Neuronpedia's files."""
    if isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch(r"\d{1,15}", str(value)):
        return int(value)
    raise LabelsError(f"labels {where}: found index {value!r}, expected a whole number")


def _text(value: Any, where: Any) -> str:
    if isinstance(value, str):
        return value
    raise LabelsError(f"labels {where}: found {value!r}, expected a text")


def _json(text: str, where: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"labels {where}: not JSON: {error}") from None


def _write_json(path: Path, text: str) -> None:
    path.write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")


def _rounded(score: float | None) -> float | str:
    return "" if score is None else round(score, 6)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when it is complete, by way of a file named `….tmp` beside it."""
    temporary = path.with_name(f"{path.name}.tmp")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(temporary, "wt", encoding="utf-8", newline="") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
