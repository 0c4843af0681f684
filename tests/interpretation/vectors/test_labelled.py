"""Tables of labelled prompts and vectors."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers.interpretation.vectors.labelled import read_labelled
from transformers.interpretation.vectors.vector_file import VectorsError

PROMPTS = {"prompt": ["Hi, you", "Bye"], "label": ["a greeting", "an end"], "split": ["test", "training"]}
VECTORS = {"vector": [[1.0, -2.5], [0.0, 3.0]], "label": ["one", "two"]}


def write(folder, suffix, columns):
    path = folder / f"table.{suffix}"
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path)
    elif suffix == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        cells = [[json.dumps(one) for one in row.values()] for row in rows]
        quoted = [",".join('"' + cell.strip('"').replace('"', '""') + '"' for cell in row) for row in cells]
        path.write_text("\n".join([",".join(columns), *quoted]) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_form_says_the_same(tmp_path, suffix):
    found = read_labelled(write(tmp_path, suffix, PROMPTS))
    assert (found.prompts, found.labels, found.splits) == tuple(map(tuple, PROMPTS.values()))
    assert found.vectors is None
    part = found.of("training", "validation")
    assert (part.prompts, part.labels, part.splits) == (("Bye",), ("an end",), ("training",))
    found = read_labelled(write(tmp_path, suffix, VECTORS))
    assert torch.equal(found.vectors, torch.tensor(VECTORS["vector"])) and found.labels == ("one", "two")
    assert found.prompts is found.splits is None and found.of("test") is found


def test_a_long_parquet_file(tmp_path):
    numbers = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    path = write(tmp_path, "parquet", {"vector": numbers.tolist(), "label": [f"label {n}" for n in range(600)]})
    found = read_labelled(path)
    assert torch.equal(found.vectors, numbers) and found.labels[599] == "label 599"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["x"]}, "found columns label; expected label, and either prompt or vector"),
        ({"prompt": ["x"]}, "found columns prompt; expected label, and either prompt or vector"),
        ({"prompt": ["x"], "vector": [[1.0]], "label": ["x"]}, "and either prompt or vector"),
        ({"prompt": ["x", "y"], "label": ["x", " "]}, "row 2: found label ' ', expected a text"),
        ({"prompt": ["x"], "label": ["x"], "split": ["dev"]}, "row 1: found split 'dev', expected one of training,"),
    ],
)
def test_what_is_missing_is_a_line(tmp_path, suffix, columns, message):
    path = write(tmp_path, suffix, columns)
    with pytest.raises(VectorsError, match=message) as caught:
        read_labelled(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", 'vector,label\n"[1, 2]",a\n[3],b\n', "row 2: found a vector of 1 numbers, expected 2"),
        ("x.csv", "vector,label\n1 2,a\n", "row 1: found no vector; expected a list of numbers"),
        ("x.csv", 'vector,label\n"[[1]]",a\n', "row 1: found no vector"),
        ("x.csv", "prompt,label\n", "found no rows"),
        ("x.csv", "", "found no rows"),
        ("x.csv", b"prompt,label\n\xff,a\n", "cannot read .*utf-8"),
        ("x.jsonl", "[1]\n", "line 1: found \\[1\\], expected an object"),
        ("x.jsonl", "{\n", "line 1: not JSON"),
        ("x.jsonl", '{"vector": ["1"], "label": "a"}', "row 1: found no vector"),
        ("x.jsonl", '{"prompt": "p", "label": "a"}\n{"prompt": "p"}', "row 2: found label None"),
        ("x.parquet", "no", "cannot be read as Parquet"),
        ("x.pt", "", "is pickled, and could run code"),
        ("x.txt", "", r"expected \.csv, \.jsonl or \.parquet"),
    ],
)
def test_what_cannot_be_read_is_a_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VectorsError, match=message) as caught:
        read_labelled(tmp_path / name)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_that_is_not_there(tmp_path, suffix):
    with pytest.raises(VectorsError, match=r"No such file|there is no"):
        read_labelled(tmp_path / f"none.{suffix}")
