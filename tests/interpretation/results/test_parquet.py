"""Parquet: typed columns, exact round trips, and outputs that survive kills."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_output import CHUNKS, MANIFEST, RECORDS, SETTINGS, kill_until_done
from transformers.interpretation.interpretations import Interpretations, read_parquet
from transformers.interpretation.results import parquet
from transformers.interpretation.results.csv_table import ResultsError
from transformers.interpretation.results.record import COLUMNS
from transformers.interpretation.results.streaming import Examples, read_portion
from transformers.interpretation.runs.csv_writer import Found, inspect_output, open_output
from transformers.interpretation.runs.manifest import OutputError, Position, read_manifest
from transformers.interpretation.runs.shards import Piece, Shard, shard_path

PIECES = [Piece(number, 3, 1, parquet.encode(records)) for number, records in enumerate(CHUNKS)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.parquet"


def test_columns_have_types(path):
    Interpretations(RECORDS).to_parquet(path)
    table = pq.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    assert table.column("prompt_token_list").to_pylist()[0] == ["a", "b"]
    assert table.column("interpretation_prob").to_pylist()[:2] == [None, [0.25]]
    assert table.schema.field("layer_idx").type == pa.int32()
    numbers = Interpretations([replace(RECORDS[1], interpretation_prob=(1 / 3,), layer_idx=None, insert_layer=(1, 3))])
    numbers.to_parquet(path)
    assert read_parquet(path) == numbers


def test_row_groups_are_small_and_none_is_lost(path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP", 5)
    parquet.write_table(path, [piece.data for piece in PIECES])
    assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(2)] == [6, 6]
    assert list(read_parquet(path)) == RECORDS
    monkeypatch.setattr(parquet, "ROW_GROUP", 10**6)
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1)
    parquet.write_table(path, [piece.data for piece in PIECES])
    assert pq.ParquetFile(path).num_row_groups == 4


def test_a_portion_is_read_of_it(path):
    Interpretations(RECORDS).to_parquet(path)
    portion = read_portion(path, Examples(1, 3))
    assert list(portion.records) == RECORDS[3:9]
    assert "--examples" not in (portion.note or "")


def test_files_that_are_not_ours(path):
    path.write_bytes(b"years of work")
    with pytest.raises(ResultsError, match=r"out\.parquet: cannot read: "):
        read_parquet(path)
    with pytest.raises(ResultsError, match="No such file"):
        read_parquet(path.with_name("none.parquet"))
    pq.write_table(pa.table({"name": ["x"]}), path)
    with pytest.raises(ResultsError, match="no column category, prompt"):
        read_parquet(path)
    Interpretations(RECORDS).to_parquet(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(6, "token_idx", pa.array(["1"] * table.num_rows)), path)
    with pytest.raises(ResultsError, match="column token_idx must be of type int32, found string"):
        read_parquet(path)


def write(path, stop_after=None, **options):
    """What a run does."""
    found = inspect_output(path, SETTINGS, **options)
    if found.is_complete:
        return
    with open_output(path, found.manifest or MANIFEST, found) as output:
        for number in range(len(PIECES) if stop_after is None else stop_after):
            if not output.take(number):
                output.append(PIECES[number])
        if stop_after is None:
            output.finish()


@pytest.fixture
def whole(tmp_path_factory):
    """The bytes of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "out.parquet"
    write(path)
    assert list(read_parquet(path)) == RECORDS
    return path.read_bytes()


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_a_run_goes_on_where_it_stopped(path, whole, stop_after):
    write(path, stop_after)
    assert not path.exists()
    found = inspect_output(path, SETTINGS)
    assert (sorted(found.kept), found.rows, found.failed) == (list(range(stop_after)), 3 * stop_after, stop_after)
    Shard(shard_path(path, MANIFEST.key, "b", 7)).append(PIECES[2])  # of another rank
    write(path)
    assert path.read_bytes() == whole
    complete = read_manifest(path).complete
    assert (complete.chunks, complete.rows, complete.failed, complete.bytes) == (4, 12, 4, len(whole))
    assert sorted(file.name for file in path.parent.iterdir()) == ["out.parquet", "out.parquet.manifest.json"]
    assert inspect_output(path, SETTINGS).is_complete
    write(path, 1, overwrite=True)
    assert sorted(inspect_output(path, SETTINGS).kept) == [0]


def test_what_must_not_be_touched(path, whole):
    path.write_bytes(b"thesis")
    with pytest.raises(OutputError, match="without the manifest of a run"):
        inspect_output(path, SETTINGS)
    path.unlink()
    write(path, 2)
    with pytest.raises(OutputError, match="started with other settings"):
        inspect_output(path, {**SETTINGS, "layers": "0"})
    with open_output(path, MANIFEST, Found(MANIFEST)), pytest.raises(OutputError, match="by another process"):
        open_output(path, MANIFEST, Found(MANIFEST)).__enter__()
    path.write_bytes(b"thesis")
    with pytest.raises(OutputError, match="is not what this run writes"):
        write(path)
    assert path.read_bytes() == b"thesis"
    path.write_bytes(whole)  # as a kill leaves it between the file and its manifest
    write(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(OutputError, match="has been changed since its run wrote it"):
        inspect_output(path, SETTINGS)


def test_killed_at_any_moment(path, whole):
    assert kill_until_done(lambda: write(path), 0.0005) > 3
    assert path.read_bytes() == whole
    assert inspect_output(path, SETTINGS).position != Position()
