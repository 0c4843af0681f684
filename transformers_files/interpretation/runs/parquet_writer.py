"""A Parquet output: chunks are kept in shards until all are there; then the file is written at once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.parquet import write_table
from .manifest import Manifest, OutputError, Position
from .shards import (
    Piece,
    Shard,
    ShardEntry,
    clear_shards,
    file_crc32,
    find_pieces,
    read_piece,
    remove_shards,
    shard_path,
)

if TYPE_CHECKING:
    from .csv_writer import Found


class ParquetOutput:
    """The same methods as `csv_writer.OutputFile`, with the same guarantees."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.position = Position()
        """How many chunks have been taken or appended, in order; the bytes are those of the finished file."""
        self.kept: Mapping[int, ShardEntry] = {}
        self._manifest = manifest
        self._shard = Shard(shard_path(path, manifest.key, secrets.token_hex(4), 0))

    def begin(self) -> None:
        """Start over. After a kill half-way, there is the old run, perhaps without its table, or a new one."""
        clear_shards(self.path)
        self.path.unlink(missing_ok=True)
        self._manifest.write(self.path)

    def resume(self, found: Found) -> None:
        """Take over the chunks that were found."""
        self.kept = found.kept

    def rescan(self) -> None:
        """Find the chunks that other processes have written to shards meanwhile."""
        self.kept = find_pieces(self.path, self._manifest.key)

    def take(self, chunk: int) -> bool:
        """Count a chunk that has been computed already; False if it has not."""
        if chunk not in self.kept:
            return False
        self._count(self.kept[chunk])
        return True

    def append(self, piece: Piece) -> None:
        """Keep the next chunk: it is on the disk when this returns, or not at all after an error or an interrupt."""
        self._shard.append(piece)
        self._count(piece)

    def finish(self) -> None:
        """Write the file and mark it as complete."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        entries = find_pieces(self.path, self._manifest.key)
        try:
            write_table(temporary, (read_piece(entries[chunk]).data for chunk in range(self.position.chunks)))
            crc = file_crc32(temporary)
            if self.path.exists() and file_crc32(self.path) != crc:
                raise OutputError(f"{self.path} is not what this run writes; move it away")
            size = temporary.stat().st_size
            os.replace(temporary, self.path)
        except OSError as error:
            safe = f"{self.position.rows} rows are safe"
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; {safe}") from None
        replace(self._manifest, complete=replace(self.position, bytes=size, crc32=crc)).write(self.path)
        remove_shards(self.path)

    def _count(self, piece: Piece | ShardEntry) -> None:
        before = self.position
        self.position = Position(before.chunks + 1, before.rows + piece.rows, before.failed + piece.failed)
