"""Tables of any size are read row by row: the right part, said to be a part, in memory that does not grow."""

from __future__ import annotations

import tracemalloc

import pytest
from report_records import grid_records
from transformers.interpretation.interpretations import Interpretations
from transformers.interpretation.results.csv_table import CsvTable, ResultsError, csv_header, csv_rows
from transformers.interpretation.results.streaming import Examples, read_example, read_portion

CELLS = 12
"""Of each example of `grid_records`."""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "ten.csv"
    Interpretations(grid_records(examples=10)).to_csv(path)
    return path


def names_of(portion):
    assert len(portion.records) == CELLS * len({record.name for record in portion.records})
    return [int(name.removeprefix("fact_")) - 1 for name in dict.fromkeys(record.name for record in portion.records)]


def test_all_of_a_small_table(table):
    whole = read_portion(table)
    assert whole.note is None
    assert whole.records == tuple(CsvTable(table))
    assert len(whole.records) == 10 * CELLS


@pytest.mark.parametrize("text", ["0:3", "4:", ":2", "::3", "2:9:2", "7", "9:", "20:", "3:3"])
def test_a_range_of_examples_is_that_of_a_list(table, text):
    numbers = list(range(10))
    expected = numbers[slice(*(int(part) if part else None for part in text.split(":")))] if ":" in text else [7]
    found = read_portion(table, Examples.read(text))
    assert names_of(found) == expected
    count = f"{len(expected)} example" + "s" * (len(expected) != 1)
    assert found.note.startswith(f"Shown are {CELLS * len(expected)} interpretations of {count}, about ")


def test_a_page_takes_whole_examples_and_says_where_to_go_on(table):
    shown, at = [], Examples()
    for _ in range(9):
        found = read_portion(table, at, most_cells=3 * CELLS + 5)
        shown.append(names_of(found))
        if found.note is None or "More" not in found.note:
            break
        at = Examples.read(found.note.rpartition("--examples ")[2])
    assert shown == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    found = read_portion(table, Examples.read("1::2"), most_cells=2 * CELLS)
    assert names_of(found) == [1, 3]
    assert found.note.endswith("More: python -m transformers.interpretation.report ten.csv --examples 5::2")


def test_of_an_example_that_is_too_large_the_first_cells(table):
    found = read_portion(table, Examples.read("2:"), most_cells=5)
    assert found.records == tuple(CsvTable(table))[2 * CELLS : 2 * CELLS + 5]
    assert found.note.endswith(" --examples 3:")


def test_the_share_is_that_of_the_file(tmp_path):
    path = tmp_path / "long.csv"
    Interpretations(grid_records(examples=400)).to_csv(path)
    for examples, share in [(Examples(0, 40), 10), (Examples(0, None, 10), 10), (Examples(100, 120), 5)]:
        note = read_portion(path, examples).note
        said = float(note.partition("about ")[2].partition(" %")[0])
        assert said == pytest.approx(share, rel=0.25)


def test_an_example_is_found_by_its_name(table):
    rows = tuple(CsvTable(table))
    assert read_example(table, "fact_7") == rows[6 * CELLS : 7 * CELLS]
    assert read_example(table, "fact_7", most_cells=5) == rows[6 * CELLS : 6 * CELLS + 5]
    with pytest.raises(ValueError, match=r"no example 'fact_77'; the first are: fact_1, .*, fact_5$"):
        read_example(table, "fact_77")


def test_rows_that_are_wrong_are_found_where_they_are_read(tmp_path):
    records = grid_records(examples=4)
    bad = tmp_path / "bad.csv"
    bad.write_text(csv_header() + csv_rows(records[:30]) + "wrong\ntoo\n" + csv_rows(records[30:]))
    with pytest.raises(ResultsError) as caught:
        read_portion(bad)
    assert len(caught.value.problems) == 2
    reader = iter(CsvTable(bad))
    assert [next(reader).name for _ in range(30)][-1] == "fact_3"
    with pytest.raises(ResultsError):
        list(reader)


@pytest.mark.parametrize("text", ["", "x", "-3:", "1:2:0", "1:2:3:4", "1,2", ":-1"])
def test_what_is_no_range(text):
    with pytest.raises(ValueError, match=r"is no range of examples|has step 0"):
        Examples.read(text)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Prompts and token lists of every row included: those of an example are held once, those of others not at all."""
    peaks = []
    for examples in (15, 150):
        path = tmp_path / f"{examples}.csv"
        Interpretations(grid_records(examples=examples, tokens=10)).to_csv(path)
        read_portion(path, most_cells=100)  # what is imported and kept once
        for read in (
            lambda path=path: read_portion(path, most_cells=100),
            lambda path=path: read_portion(path, Examples(0, None, 10), most_cells=100),
            lambda path=path, last=examples: read_example(path, f"fact_{last}"),
        ):
            tracemalloc.start()
            read()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    for small, large in zip(peaks[:3], peaks[3:]):
        assert large < 1.3 * small + 50_000
