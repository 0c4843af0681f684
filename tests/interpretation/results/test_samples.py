"""The interpretation that most samples of a cell agree on."""

from __future__ import annotations

import csv
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_records import data_of, failed, grid_records
from transformers.interpretation import Interpretations, read_csv, read_parquet
from transformers.interpretation.report import notebook_view, page
from transformers.interpretation.results.csv_table import ResultsError
from transformers.interpretation.results.samples import agreement

RECORDS = grid_records(examples=1, layers=2, tokens=2)
TEXTS = (" a city", "A  City", " a town", " a lake", " a town", "\na city\n")


def samples_of(record, texts=TEXTS):
    return [
        replace(record, sample=n, interpretation_text=text, interpretation_tokens=(text, *[""] * 5))
        for n, text in enumerate(texts)
    ]


def test_the_most_frequent_text_whatever_its_case_and_spaces():
    found = agreement(samples_of(RECORDS[0]))
    assert (found.record.sample, found.alike, found.samples, found.share) == (0, 3, 6, 0.5)
    tied = agreement(samples_of(RECORDS[0], (" b", " a", " a", " b")))
    assert (tied.record.interpretation_text, tied.share) == (" b", 0.5)
    same = agreement(samples_of(RECORDS[0], (" b",) * 3))
    assert same.share == 1


def test_samples_that_went_wrong_agree_with_none():
    samples = samples_of(RECORDS[0], (" a", " b", " b", " c"))
    some = [failed(samples[0]), *samples[1:]]
    assert (agreement(some).record, agreement(some).share) == (samples[1], 0.5)
    wrong = [failed(one) for one in samples]
    assert (agreement(wrong).record, agreement(wrong).share) == (wrong[0], 0)


def test_cells_are_told_apart_in_any_order():
    records = [one for record in RECORDS for one in samples_of(record, (" a", record.current_token, " a"))]
    found = Interpretations([*records[::3], *records[1::3], *records[2::3]]).agreements()
    assert [one.record for one in found] == records[::3]
    assert {(one.alike, one.samples) for one in found} == {(2, 3)}
    assert Interpretations(RECORDS).agreements() == []


def test_the_page_and_the_notebook_show_the_most_frequent_and_how_many_say_so():
    records = [*samples_of(RECORDS[0], (" x", " y", " y")), *samples_of(RECORDS[1], (" z", " z", " z"))]
    (reading,) = data_of(page(records))["examples"][0]["readings"]
    assert ["".join(cell[3]) for cell in reading["cells"]] == [" y", " z"]
    assert [cell[7:] for cell in reading["cells"]] == [[2, 3], [3, 3]]
    assert "3,3]" in notebook_view(records)
    (plain,) = data_of(page(RECORDS))["examples"][0]["readings"]
    assert all(len(cell) == 7 for cell in plain["cells"])


def test_files_keep_the_samples_and_older_ones_have_none(tmp_path):
    records = [replace(one, interpretation_tokens=()) for one in samples_of(RECORDS[0])]
    results = Interpretations(records)
    results.to_csv(tmp_path / "out.csv")
    results.to_parquet(tmp_path / "out.parquet")
    assert [one.sample for one in read_csv(tmp_path / "out.csv")] == list(range(6))
    assert list(read_parquet(tmp_path / "out.parquet")) == records

    older = read_csv_without(tmp_path, "sample")
    assert [one.sample for one in older] == [None] * 6
    assert [one.interpretation_text for one in older] == list(TEXTS)
    table = pq.read_table(tmp_path / "out.parquet").drop_columns(["sample"])
    pq.write_table(table, tmp_path / "older.parquet")
    assert list(read_parquet(tmp_path / "older.parquet")) == [replace(one, sample=None) for one in records]
    pq.write_table(table.append_column("sample", pa.array(["x"] * 6)), tmp_path / "wrong.parquet")
    with pytest.raises(ResultsError, match="column sample must be of type int32, found string"):
        read_parquet(tmp_path / "wrong.parquet")


def read_csv_without(tmp_path, column):
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(tmp_path / "older.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != column], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return read_csv(tmp_path / "older.csv")
