"""A CSV output that survives a kill: chunks are appended whole, and a torn one is cut off.

    found = inspect_output(path, identity)                # before the model is loaded: refuses, or finds a run
    with open_output(path, manifest, found) as output:
        for chunk in range(output.position.chunks, n_chunks):
            if not output.take(chunk):                    # computed already by another process: see `shards`
                output.append(piece_of(chunk))
        output.finish()

Next to the file are its manifest and, until the run is complete, `….progress`: one line of JSON per chunk with the
file's size and running CRC-32 after it, written once the chunk is on the disk. Whatever the file holds beyond the last
line is a torn write and is overwritten; a file whose bytes do not match the CRC has been changed by somebody else and
is left alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..results.csv_table import csv_header
from .files import check_writable
from .manifest import MANIFEST_SUFFIX, Manifest, OutputError, Position, manifest_path, read_manifest
from .parquet_writer import ParquetOutput
from .shards import Piece, ShardEntry, file_crc32, find_pieces, read_piece, remove_shards, shards_folder, write_whole

_ANEW = "name another output, or start over with --overwrite"


@dataclass(frozen=True)
class Found:
    """What already exists at an output's path."""

    manifest: Manifest | None = None
    """The manifest of the run to resume; None: a new run begins."""
    position: Position = field(default_factory=Position)
    """How far the output itself has come."""
    kept: Mapping[int, ShardEntry] = field(default_factory=dict)
    """Chunks that are on the disk but not in the output yet."""

    @property
    def is_complete(self) -> bool:
        return self.manifest is not None and self.manifest.complete is not None

    @property
    def rows(self) -> int:
        """Interpretations that need not be computed again."""
        return self.position.rows + sum(place.rows for place in self.kept.values())

    @property
    def failed(self) -> int:
        """How many of them have no interpretation."""
        return self.position.failed + sum(place.failed for place in self.kept.values())


def find_kept(path: Path, manifest: Manifest, position: Position) -> dict[int, ShardEntry]:
    """The chunks in shards that are not in an output that has reached `position`."""
    pieces = find_pieces(path, manifest.key)
    return {chunk: place for chunk, place in pieces.items() if chunk >= position.chunks}


def files_of(output: Path) -> dict[str, Path]:
    """Whatever a run writes for an output, by what it is called."""
    return {
        "the table": output,
        "the table's manifest": manifest_path(output),
        "the table's progress": _progress_path(output),
        "the table's shards": shards_folder(output),
    }


def check_output(path: Path) -> None:
    """Raise OutputError if a file cannot be written there, or if one exists that no run has written. Writes nothing."""
    check_writable(path, longest_suffix=f"{MANIFEST_SUFFIX}.tmp")
    if read_manifest(path) is None and path.exists() and path.stat().st_size:
        raise OutputError(f"{path} exists without the manifest of a run; name another output or move it away")


def find_begun(path: Path) -> Manifest | None:
    """The manifest of the run that began this output; None where there is none. Raises OutputError."""
    manifest = read_manifest(path)
    has_rows = path.exists() and path.stat().st_size
    return manifest if has_rows or (is_parquet(path) and shards_folder(path).is_dir()) else None


def inspect_output(path: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> Found:
    """How far a run of this identity has come. Writes nothing.

    Raises OutputError if a file exists that this run must not touch.
    """
    check_output(path)
    manifest = None if overwrite else find_begun(path)
    if manifest is None:
        return Found()
    size = path.stat().st_size if path.exists() else 0
    differences = manifest.differences(identity)
    if differences:
        raise OutputError(f"{path} was started with other settings ({'; '.join(differences)}); {_ANEW}")
    if is_parquet(path) and manifest.complete is None:
        return Found(manifest, Position(), find_pieces(path, manifest.key))
    position = manifest.complete or _last_position(_progress_path(path), size)
    changed = manifest.complete is not None and size != position.bytes
    if changed or file_crc32(path, position.bytes) != position.crc32:
        raise OutputError(f"{path} has been changed since its run wrote it; {_ANEW}")
    return Found(manifest, position, {} if manifest.complete else find_kept(path, manifest, position))


class OutputFile:
    """A CSV that grows by whole chunks; see `open_output`."""

    def __init__(self, path: Path, table: io.FileIO, progress: io.FileIO, manifest: Manifest) -> None:
        self.path = path
        self.position = Position()
        self.kept: Mapping[int, ShardEntry] = {}
        self._table = table
        self._progress = progress
        self._manifest = manifest

    def begin(self) -> None:
        """Start over. After a kill half-way, the next run finds the old run, or a new one without chunks."""
        self._progress.truncate(0)
        remove_shards(self.path)
        self._manifest.write(self.path)
        self.resume(Found(self._manifest))

    def resume(self, found: Found) -> None:
        """Cut off what is torn."""
        self._cut(found.position)
        self.kept = found.kept
        if found.position == Position():
            header = csv_header().encode()
            write_whole(self._table, header)
            self.position = Position(bytes=len(header), crc32=zlib.crc32(header))

    def rescan(self) -> None:
        """Find the chunks that other processes have written to shards meanwhile."""
        self.kept = find_kept(self.path, self._manifest, self.position)

    def take(self, chunk: int) -> bool:
        """Append a chunk that has been computed already; False if it has not."""
        if chunk not in self.kept:
            return False
        self.append(read_piece(self.kept[chunk]))
        return True

    def append(self, piece: Piece) -> None:
        """Write the next chunk: it is on the disk when this returns, or not at all after an error or an interrupt."""
        before = self.position
        after = Position(
            chunks=before.chunks + 1,
            rows=before.rows + piece.rows,
            failed=before.failed + piece.failed,
            bytes=before.bytes + len(piece.data),
            crc32=zlib.crc32(piece.data, before.crc32),
        )
        try:
            write_whole(self._table, piece.data)
            # The line feed comes first, so that the rest of a torn line before it remains a line of its own.
            write_whole(self._progress, b"\n" + json.dumps(asdict(after)).encode())
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._cut(before)
            if isinstance(error, OSError):
                safe = f"{before.rows} rows are safe"
                raise OutputError(f"cannot write {self.path}: {error.strerror or error}; {safe}") from None
            raise
        self.position = after

    def finish(self) -> None:
        """Mark the output as complete."""
        replace(self._manifest, complete=self.position).write(self.path)
        _progress_path(self.path).unlink()
        remove_shards(self.path)

    def _cut(self, position: Position) -> None:
        self._table.truncate(position.bytes)
        self._table.seek(position.bytes)
        self._progress.seek(0, os.SEEK_END)
        self.position = position


def clear_leftovers(path: Path) -> None:
    """Remove what is beside a complete output if its run was stopped before it had cleared up.

    Of a process that writes the output anew meanwhile nothing is touched.
    """
    if not _progress_path(path).exists() and not shards_folder(path).exists():
        return
    with contextlib.suppress(OutputError, OSError), contextlib.ExitStack() as files:
        if (manifest := read_manifest(path)) is None:
            return
        (_open_parquet if is_parquet(path) else _open_csv)(path, manifest, files)
        manifest = read_manifest(path)  # nobody else changes it from here on
        if manifest is not None and manifest.complete is not None:
            _progress_path(path).unlink(missing_ok=True)
            remove_shards(path)


@contextlib.contextmanager
def open_output(path: Path, manifest: Manifest, found: Found) -> Iterator[OutputFile | ParquetOutput]:
    """Start an output, or resume what `inspect_output` found.

    Raises OutputError if another process is writing it, or if it cannot be written.
    """
    with contextlib.ExitStack() as files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            output = (_open_parquet if is_parquet(path) else _open_csv)(path, manifest, files)
            if found.manifest is None:
                output.begin()
            else:
                output.resume(found)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        yield output


def is_parquet(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() == ".parquet"


def _open_csv(path: Path, manifest: Manifest, files: contextlib.ExitStack) -> OutputFile:
    table = files.enter_context(_opened(path))
    _lock(table.fileno(), path)
    return OutputFile(path, table, files.enter_context(_opened(_progress_path(path))), manifest)


def _open_parquet(path: Path, manifest: Manifest, files: contextlib.ExitStack) -> ParquetOutput:
    shards_folder(path).mkdir(exist_ok=True)
    folder = os.open(shards_folder(path), os.O_RDONLY)
    files.callback(os.close, folder)
    _lock(folder, path)
    return ParquetOutput(path, manifest)


def _progress_path(path: Path) -> Path:
    return path.with_name(path.name + ".progress")


def _last_position(progress: Path, size: int) -> Position:
    """The last whole line of the progress that a file of this size can hold."""
    position = Position()
    for line in progress.read_bytes().splitlines() if progress.exists() else ():
        try:
            found = Position.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue  # torn
        if found.bytes <= size:
            position = found
    return position


def _opened(path: Path) -> io.FileIO:
    """Open for reading and writing, made if need be; unbuffered, so that nothing is written later than it seems."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path} is being written by another process") from None
    except OSError:
        pass  # a file system without locks
