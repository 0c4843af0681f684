"""Chunks that are on the disk but not in the output yet: a folder next to it, one file per process and launch.

    shard = Shard(shard_path(output, manifest.key, launch, rank))
    shard.append(Piece(chunk, rows, failed, data))       # on the disk when this returns
    kept = find_pieces(output, manifest.key)             # {chunk: where it lies}
    read_piece(kept[7])

A file is a sequence of frames: a line of JSON that describes what follows, the chunk's bytes as they go into the
output, and a CRC-32 of both. Only its own process writes to it, and never again after it has ended, so only the last
frame can be torn; it is skipped, and its chunk is computed again. The key in a file's name is that of the
run's identity and plan: a process of an earlier run that is still alive somewhere cannot add to this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .manifest import OutputError

_FOLDER = ".shards"
_READ_BYTES = 2**20
_CRC_BYTES = 9  # eight digits and a line feed


@dataclass(frozen=True)
class Piece:
    """One chunk's records as they go into a file."""

    chunk: int
    rows: int
    failed: int
    """Rows without an interpretation; their status says why."""
    data: bytes


class ShardEntry(NamedTuple):
    """Where a piece lies."""

    path: Path
    start: int
    rows: int
    failed: int


class Shard:
    """A file of pieces that this process writes. It is made with its first piece."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, piece: Piece) -> None:
        """Write one chunk: on the disk when this returns, and not at all if it fails or is interrupted."""
        head = {"chunk": piece.chunk, "rows": piece.rows, "failed": piece.failed, "bytes": len(piece.data)}
        frame = json.dumps(head).encode() + b"\n" + piece.data
        frame += b"%08x\n" % zlib.crc32(frame)
        try:
            self._path.parent.mkdir(exist_ok=True)
            with open(self._path, "ab", buffering=0) as file:
                start = file.tell()
                try:
                    write_whole(file, frame)
                except BaseException:
                    with contextlib.suppress(OSError):
                        file.truncate(start)
                    raise
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None


def write_whole(file: BinaryIO, data: bytes) -> None:
    """Write everything, and flush it to the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def shards_folder(output: Path) -> Path:
    """Where the shards of an output lie."""
    return output.with_name(output.name + _FOLDER)


def shard_path(output: Path, key: str, launch: str, rank: int) -> Path:
    """The shard of one process. `launch`: equal for the processes that were started together, and new each time."""
    return shards_folder(output) / f"{key}-{launch}-{rank}"


def find_pieces(output: Path, key: str) -> dict[int, ShardEntry]:
    """The whole pieces of all shards with this key, by chunk."""
    entries = {}
    for path in sorted(shards_folder(output).glob(f"{key}-*")):
        with open(path, "rb") as file:
            for start, piece in _pieces(file):
                entries[piece.chunk] = ShardEntry(path, start, piece.rows, piece.failed)
    return entries


def read_piece(entry: ShardEntry) -> Piece:
    """Raises OutputError if it is not there any more."""
    with contextlib.suppress(OSError), open(entry.path, "rb") as file:
        file.seek(entry.start)
        for _, piece in _pieces(file):
            return piece
    raise OutputError(f"{entry.path} has been changed while it was read; repeat the command")


def clear_shards(output: Path) -> None:
    """Remove all of them; the folder stays."""
    for path in shards_folder(output).glob("*"):
        path.unlink(missing_ok=True)


def remove_shards(output: Path) -> None:
    """All of them, and the folder."""
    clear_shards(output)
    with contextlib.suppress(FileNotFoundError):
        shards_folder(output).rmdir()


def file_crc32(path: Path, size: int | None = None) -> int:
    """Of a file, or of its first `size` bytes."""
    crc = 0
    rest = path.stat().st_size if size is None else size
    with open(path, "rb") as file:
        while rest and (data := file.read(min(rest, _READ_BYTES))):
            crc = zlib.crc32(data, crc)
            rest -= len(data)
    return crc


def _pieces(file: BinaryIO) -> Iterator[tuple[int, Piece]]:
    """Each whole piece from here on and where it starts."""
    while True:
        start = file.tell()
        head = file.readline()
        try:
            frame = json.loads(head)
            chunk, rows, failed, size = (int(frame[name]) for name in ("chunk", "rows", "failed", "bytes"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if size < 0:
            return
        data, crc = file.read(size), file.read(_CRC_BYTES)
        if crc != b"%08x\n" % zlib.crc32(data, zlib.crc32(head)):
            return
        yield start, Piece(chunk, rows, failed, data)
