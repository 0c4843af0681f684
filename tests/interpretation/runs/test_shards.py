"""Pieces beside an output: whole or not there."""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_output import CHUNKS, MANIFEST, RECORDS, SETTINGS, piece_of
from transformers.interpretation.interpretations import read_csv
from transformers.interpretation.runs.csv_writer import Found, inspect_output, open_output
from transformers.interpretation.runs.manifest import OutputError, manifest_path
from transformers.interpretation.runs.shards import Piece, Shard, find_pieces, read_piece, shard_path, shards_folder

PIECES = [piece_of(number, records) for number, records in enumerate(CHUNKS)]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.csv"


def shard(output, rank=0, *, key=MANIFEST.key, launch="a"):
    return Shard(shard_path(output, key, launch, rank))


def found(output):
    return {chunk: read_piece(place) for chunk, place in find_pieces(output, MANIFEST.key).items()}


def test_pieces_come_back_whoever_wrote_them(output):
    assert found(output) == {}
    for number in (2, 0):
        shard(output, 1).append(PIECES[number])
    shard(output, 0, launch="b").append(PIECES[3])
    shard(output, key="0" * 16).append(PIECES[1])  # of a run with other settings
    assert found(output) == {number: PIECES[number] for number in (0, 2, 3)}
    places = find_pieces(output, MANIFEST.key)
    assert [(places[number].rows, places[number].failed) for number in (0, 2, 3)] == [(3, 1)] * 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_torn_or_changed_is_not_there(output, data):
    path = shard_path(output, MANIFEST.key, "a", 0)
    path.unlink(missing_ok=True)
    ends = [0]
    for piece in PIECES:
        shard(output).append(piece)
        ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1] - 1))
    changed = data.draw(st.one_of(st.none(), st.binary(min_size=1, max_size=20)))
    content = path.read_bytes()
    path.write_bytes(content[:cut] if changed is None else content[:cut] + changed + content[cut + len(changed) :])
    whole = sum(end <= cut for end in ends) - 1
    same = path.read_bytes() == content
    assert found(output) == {number: PIECES[number] for number in range(4 if same else whole)}


def test_a_frame_with_numbers_that_cannot_be_is_not_there(output):
    path = shard_path(output, MANIFEST.key, "a", 0)
    path.parent.mkdir()
    for head in (b'{"chunk": 0, "rows": 0, "failed": 0, "bytes": -1}\n', b"[]\n", b"[" * 100_000 + b"\n"):
        path.write_bytes(head + b"%08x\n" % zlib.crc32(head))
        assert found(output) == {}


def test_a_piece_that_could_not_be_written_leaves_nothing_torn(output, monkeypatch):
    shard(output).append(PIECES[0])
    size = shard_path(output, MANIFEST.key, "a", 0).stat().st_size

    def fails(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        patch.setattr(os, "fsync", fails)
        shard(output).append(PIECES[1])
    assert shard_path(output, MANIFEST.key, "a", 0).stat().st_size == size
    shard(output).append(Piece(7, 1, 0, b"x"))
    assert list(found(output)) == [0, 7]


def begun(output, chunks):
    """A run of one process that was killed after some chunks."""
    with open_output(output, MANIFEST, Found()) as file:
        for number in range(chunks):
            file.append(PIECES[number])


def test_one_process_takes_what_several_have_left(output):
    begun(output, 1)
    for rank, number in ((0, 3), (1, 1), (1, 0)):
        shard(output, rank).append(PIECES[number])
    state = inspect_output(output, SETTINGS)
    assert (state.position.chunks, sorted(state.kept), state.rows, state.failed) == (1, [1, 3], 9, 3)
    with open_output(output, MANIFEST, state) as file:
        assert [file.take(1), file.take(2)] == [True, False]
        file.append(PIECES[2])
        shard(output, 5, launch="b").append(PIECES[3])
        file.rescan()
        assert file.take(3)
        assert list(read_csv(output)) == RECORDS
        file.finish()
    assert not shards_folder(output).exists()
    assert inspect_output(output, SETTINGS).is_complete


def test_a_new_run_takes_nothing_from_an_older_one(output):
    begun(output, 1)
    shard(output).append(PIECES[2])
    assert inspect_output(output, SETTINGS, overwrite=True).kept == {}
    begun(output, 0)
    assert not shards_folder(output).exists()
    shard(output).append(PIECES[2])
    output.unlink()
    manifest_path(output).unlink()
    assert inspect_output(output, SETTINGS).kept == {}
