"""How ranks share the chunks that are missing: each computes those that it claims, into a shard of its own.

Rank 0 calls `lead`, the others `support`. What the shards hold in the end is for rank 0 to put into the output.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .coordination import LOOK_SECONDS, Ranks
from .job import Encode, Job
from .manifest import Manifest, OutputError
from .shards import Shard, shard_path


@dataclass(frozen=True)
class Progress:
    """What is on the disk, in the output or beside it."""

    cells: int
    """Of the plan that need not be computed again; some may turn out to have no interpretation."""
    rows: int
    failed: int
    """Rows without an interpretation; their status says why."""

    def plus(self, cells: int, rows: int, failed: int) -> Progress:
        return Progress(self.cells + cells, self.rows + rows, self.failed + failed)


def lead(
    ranks: Ranks, job: Job, manifest: Manifest, output: Path, encode: Encode, missing: Sequence[int], start: Progress
) -> Iterator[Progress]:
    """Publish what is missing (ascending), and compute a part of it. Ends when all ranks have done theirs.

    Raises RankError as soon as that is not to be expected any more.
    """
    launch = secrets.token_hex(4)
    work = {"settings": manifest.settings, "plan": manifest.plan, "launch": launch, "missing": _ranges(missing)}
    ranks.publish("work", work)
    for _ in _work(ranks, job, missing, Shard(shard_path(output, manifest.key, launch, ranks.rank)), encode):
        yield start.plus(*_told(ranks))
    while ranks.told("chunks") < len(missing):
        ranks.check()
        yield start.plus(*_told(ranks))
        time.sleep(LOOK_SECONDS)
    yield start.plus(*_told(ranks))


def support(
    ranks: Ranks, identity: Mapping[str, Any], make_job: Callable[[Manifest], Job], output: Path, encode: Encode
) -> None:
    """Compute a part of what rank 0 publishes, until nothing is left.

    identity: the settings as this rank sees them. Raises OutputError if rank 0 sees others.
    """
    work = ranks.await_published("work")
    if work is None:
        return
    manifest = Manifest(work["settings"], {}, work["plan"])
    differences = manifest.differences(identity)
    if differences:
        raise OutputError(f"rank 0 then, {ranks.name} now: {'; '.join(differences)}")
    missing = [chunk for first, end in work["missing"] for chunk in range(first, end)]
    shard = Shard(shard_path(output, manifest.key, work["launch"], ranks.rank))
    for _ in _work(ranks, make_job(manifest), missing, shard, encode):
        pass


def _work(ranks: Ranks, job: Job, chunks: Sequence[int], shard: Shard, encode: Encode) -> Iterator[None]:
    for chunk in ranks.claims(chunks):
        piece = job.piece(chunk, encode)
        shard.append(piece)
        ranks.tell(rows=piece.rows, failed=piece.failed, cells=job.plan.chunk_size(chunk), chunks=1)
        yield


def _told(ranks: Ranks) -> tuple[int, int, int]:
    return ranks.told("cells"), ranks.told("rows"), ranks.told("failed")


def _ranges(chunks: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as `[first, end]` of their runs: there may be many thousands."""
    ranges: list[list[int]] = []
    for chunk in chunks:
        if ranges and ranges[-1][1] == chunk:
            ranges[-1][1] += 1
        else:
            ranges.append([chunk, chunk + 1])
    return ranges
