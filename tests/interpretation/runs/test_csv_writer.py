"""An output file under kills, full disks, edits by hand and concurrent runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_output import CHUNKS, MANIFEST, RECORDS, SETTINGS, kill_until_done, piece_of
from transformers.interpretation.interpretations import Interpretations, read_csv
from transformers.interpretation.runs.csv_writer import Found, check_output, inspect_output, open_output
from transformers.interpretation.runs.manifest import OutputError, Position, manifest_path, read_manifest


def write(path, chunks=CHUNKS, manifest=MANIFEST, stop_after=None, **options):
    """What a run does: go on where the file is, write the missing chunks, finish. `stop_after`: that many chunks."""
    found = inspect_output(path, manifest.identity, **options)
    if found.is_complete:
        return found.position
    with open_output(path, found.manifest or manifest, found) as output:
        for number in range(output.position.chunks, len(chunks) if stop_after is None else stop_after):
            output.append(piece_of(number, chunks[number]))
        if stop_after is None:
            output.finish()
        return output.position


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.csv"


@pytest.fixture
def whole(tmp_path_factory):
    """The bytes of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "out.csv"
    write(path)
    return path.read_bytes()


def refusal(path, given=SETTINGS, **options):
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(OutputError) as caught:
        inspect_output(path, given, **options)
    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before
    return str(caught.value)


def test_an_uninterrupted_run(path, whole, tmp_path):
    Interpretations(RECORDS).to_csv(tmp_path / "plain.csv")
    assert whole == (tmp_path / "plain.csv").read_bytes()
    assert write(path) == Position(4, 12, 4, len(whole), read_manifest(path).complete.crc32)
    assert sorted(file.name for file in path.parent.iterdir()) == ["out.csv", "out.csv.manifest.json", "plain.csv"]


def test_a_finished_run_is_left_alone(path, whole):
    write(path)
    stamp = path.stat().st_mtime_ns
    assert inspect_output(path, SETTINGS).is_complete
    write(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (whole, stamp)


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_a_run_goes_on_where_it_stopped(path, whole, stop_after):
    assert write(path, stop_after=stop_after).chunks == stop_after
    assert list(read_csv(path)) == RECORDS[: 3 * stop_after]
    found = inspect_output(path, SETTINGS)
    assert (found.position.chunks, found.position.rows, found.is_complete) == (stop_after, 3 * stop_after, False)
    write(path)
    assert path.read_bytes() == whole


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4), st.binary(max_size=30), st.binary(max_size=30), st.integers(0, 90))
def test_torn_ends_are_rewritten(tmp_path, whole, stop_after, torn_row, torn_line, lost):
    """As a kill leaves it: half a chunk in the table, half a line in the progress; or the end lost with the power."""
    path = tmp_path / "out.csv"
    for file in (path, manifest_path(path), progress_of(path)):
        file.unlink(missing_ok=True)
    write(path, stop_after=stop_after)
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(torn_row)
    with open(progress_of(path), "ab") as file:
        file.write(b"\n" + torn_line)
    if lost:
        os.truncate(path, max(0, size - lost))
    write(path)
    assert path.read_bytes() == whole


def progress_of(path):
    return path.with_name(path.name + ".progress")


def test_progress_lines_that_are_no_positions_are_ignored(path, whole):
    write(path, stop_after=2)
    line = json.loads(progress_of(path).read_text().splitlines()[-1])
    with open(progress_of(path), "a") as file:
        for wrong in ("7", "null", "[]", "{}", json.dumps({**line, "rows": -1}), json.dumps({**line, "chunks": "3"})):
            file.write("\n" + wrong)
    assert inspect_output(path, SETTINGS).position == Position(**line)


def test_other_settings_are_refused_and_named(path):
    write(path, stop_after=2)
    for change, named in [
        ({"layers": "0:3"}, "(layers: was all, now 0:3)"),
        ({"versions": {"torch": "2", "transformers": "4"}}, "(versions transformers: was 5, now 4)"),
        ({"seed": 1}, "(seed: was none, now 1)"),
    ]:
        message = refusal(path, {**SETTINGS, **change})
        assert named in message
        assert message.endswith("name another output, or start over with --overwrite")
    write(path)
    assert "started with other settings" in refusal(path, {**SETTINGS, "layers": "0"})


def test_overwrite_starts_anew(path, whole):
    other = replace(MANIFEST, identity={**SETTINGS, "layers": "0"})
    for stop_after in (2, None):
        write(path, [[replace(record, name="other") for record in RECORDS]] * 4, other, stop_after, overwrite=True)
        write(path, overwrite=True)
        assert path.read_bytes() == whole
        assert read_manifest(path).identity == SETTINGS


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_file_is_never_overwritten(path, overwrite):
    path.write_text("my thesis")
    assert "without the manifest of a run" in refusal(path, overwrite=overwrite)


def test_an_empty_file_and_a_missing_one_are_free(path, whole):
    path.touch()
    write(path)
    assert path.read_bytes() == whole
    path.unlink()  # its manifest stays
    write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("stop_after", [2, None])
def test_a_changed_file_is_left_alone(path, whole, stop_after):
    write(path, stop_after=stop_after)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"x_1", b"x_7"))
    assert "has been changed since its run wrote it" in refusal(path)
    if stop_after is None:
        path.write_bytes(content + b"more")
        assert "has been changed since its run wrote it" in refusal(path)
    write(path, overwrite=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "settings": 3, "about": {}, "plan": {}}',
        '{"format": 1, "settings": {}, "about": {}, "plan": {"batch_size": "x", "chunk_cells": 3}}',
        '{"format": 1, "settings": {}, "about": {}, "plan": {"batch_size": 1, "chunk_cells": 3}, "complete": {}}',
        "[" * 100_000,
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(path, content):
    path.write_text("x")
    manifest_path(path).write_text(content)
    assert str(manifest_path(path)) in refusal(path)


def test_places_that_cannot_be_written(path, tmp_path):
    (tmp_path / "file").write_text("")
    for wrong, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "out.csv", "is not a folder"),
        (Path("/dev/null"), "is no ordinary file"),
        (Path("/proc/out.csv"), "cannot write"),
    ]:
        with pytest.raises(OutputError, match=message):
            check_output(wrong)
            open_output(wrong, MANIFEST, Found()).__enter__()
    new = tmp_path / "new" / "folder" / "out.csv"
    check_output(new)
    assert not new.parent.exists()
    write(new)
    assert new.exists()


def test_one_process_at_a_time(path):
    with open_output(path, MANIFEST, Found()) as output:
        output.append(piece_of(0, CHUNKS[0]))
        with pytest.raises(OutputError, match="is being written by another process"):
            open_output(path, MANIFEST, Found()).__enter__()
        output.append(piece_of(1, CHUNKS[1]))
    assert inspect_output(path, SETTINGS).position.chunks == 2


def test_an_interrupted_append_leaves_no_torn_row(path, whole, monkeypatch):
    with open_output(path, MANIFEST, Found()) as output:
        output.append(piece_of(0, CHUNKS[0]))

        def interrupted(descriptor):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "fsync", interrupted)
            output.append(piece_of(1, CHUNKS[1]))
        assert list(read_csv(path)) == RECORDS[:3]
    write(path)
    assert path.read_bytes() == whole


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from test_csv_writer import CHUNKS, SETTINGS, write
    from transformers.interpretation.runs.manifest import OutputError
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write(path)
    except OutputError as error:
        print(error)
"""


def test_a_full_disk_leaves_what_is_there(path, whole):
    """A limit of the file's size stands for the end of the disk: the system cuts the write short in the same way."""
    for limit in (len(whole) // 2, len(whole) - 1):
        code = textwrap.dedent(FULL_DISK)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        ended = subprocess.run(
            [sys.executable, "-c", code, str(path), str(limit)], env=environment, capture_output=True, text=True
        )
        chunks = inspect_output(path, SETTINGS).position.chunks
        assert f"cannot write {path}: File too large; {3 * chunks} rows are safe" in ended.stdout, ended.stderr
        assert list(read_csv(path)) == RECORDS[: 3 * chunks]
        assert 0 < chunks < 4
    write(path)
    assert path.read_bytes() == whole


def test_killed_at_any_moment(path, whole):
    assert kill_until_done(lambda: write(path), 0.0002) > 3
    assert path.read_bytes() == whole
