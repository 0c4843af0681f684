"""How ranks share the missing chunks: each rank computes those that it claims, and writes them to its own shard.

Rank 0 calls `lead`, the others call `support`. In the end rank 0 moves the contents of the shards to the output.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .coordination import POLL_SECONDS, Ranks
from .job import ChunkJob, Encode
from .manifest import Manifest, OutputError
from .shards import Shard, shard_path


@dataclass(frozen=True)
class Progress:
    """What is on the disk, in the output or in shards."""

    cells: int
    """Of the plan that need not be computed again; some may turn out to have no interpretation."""
    rows: int
    failed: int
    """Rows without an interpretation; their status says why."""

    def plus(self, cells: int, rows: int, failed: int) -> Progress:
        return Progress(self.cells + cells, self.rows + rows, self.failed + failed)


def lead(
    ranks: Ranks,
    job: ChunkJob,
    manifest: Manifest,
    output: Path,
    encode: Encode,
    missing: Sequence[int],
    start: Progress,
) -> Iterator[Progress]:
    """Publish which chunks are missing (ascending), and compute a part of them. Ends when all ranks are done.

    Raises RankError as soon as one of them has failed.
    """
    launch = secrets.token_hex(4)
    work = {"identity": manifest.identity, "plan": manifest.plan, "launch": launch, "missing": _ranges(missing)}
    ranks.publish("work", work)
    for _ in _work(ranks, job, missing, Shard(shard_path(output, manifest.key, launch, ranks.rank)), encode):
        yield start.plus(*_totals(ranks))
    while ranks.total("chunks") < len(missing):
        ranks.check()
        yield start.plus(*_totals(ranks))
        time.sleep(POLL_SECONDS)
    yield start.plus(*_totals(ranks))


def support(
    ranks: Ranks, identity: Mapping[str, Any], make_job: Callable[[Manifest], ChunkJob], output: Path, encode: Encode
) -> None:
    """Compute a part of the chunks that rank 0 publishes, until none is left.

    identity: of the run as this rank was asked for it; see `Manifest`. Raises OutputError if rank 0 has another.
    """
    work = ranks.await_published("work")
    if work is None:
        return
    manifest = Manifest(work["identity"], {}, work["plan"])
    differences = manifest.differences(identity)
    if differences:
        raise OutputError(f"rank 0 and {ranks.name} have different settings: {'; '.join(differences)}")
    missing = [chunk for first, end in work["missing"] for chunk in range(first, end)]
    shard = Shard(shard_path(output, manifest.key, work["launch"], ranks.rank))
    for _ in _work(ranks, make_job(manifest), missing, shard, encode):
        pass


def _work(ranks: Ranks, job: ChunkJob, chunks: Sequence[int], shard: Shard, encode: Encode) -> Iterator[None]:
    for chunk in ranks.claims(chunks):
        piece = job.piece(chunk, encode)
        shard.append(piece)
        ranks.add(rows=piece.rows, failed=piece.failed, cells=job.plan.chunk_size(chunk), chunks=1)
        yield


def _totals(ranks: Ranks) -> tuple[int, int, int]:
    return ranks.total("cells"), ranks.total("rows"), ranks.total("failed")


def _ranges(chunks: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as `[first, end]` of their runs: there may be many thousands."""
    ranges: list[list[int]] = []
    for chunk in chunks:
        if ranges and ranges[-1][1] == chunk:
            ranges[-1][1] += 1
        else:
            ranges.append([chunk, chunk + 1])
    return ranges
