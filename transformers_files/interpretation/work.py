"""A prepared request, carried out: alone, or as one of several ranks. It can be stopped at any moment, and goes on.

    prepared = prepare(request)
    if not prepared.is_complete:
        for progress in run(prepared):
            print(progress.rows)

With several processes rank 0 does this; the others `assist` with the same request, once rank 0 has prepared it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from . import parquet
from .batch import Prepared, Request, about
from .engine import resolve_batch_size
from .loading import load_weights
from .manifest import Manifest
from .output import is_parquet, open_output
from .plan import Plan
from .run import Encode, Job
from .sharing import Progress, lead, support
from .table import csv_rows


def run(prepared: Prepared) -> Iterator[Progress]:
    """Load the model and interpret, chunk by chunk, from where an earlier run stopped.

    Yields how far the run has come, once before the first chunk and after each; by then it is on the disk. Raises
    ModelError, OutputError and RankError; what was yielded stays.
    """
    request, plan, found = prepared.request, prepared.plan, prepared.found
    model = load(prepared)
    manifest = found.manifest
    if manifest is None:
        batch_size = request.batch_size or resolve_batch_size(model, plan.prompts, prepared.settings)
        resolved = {"batch_size": batch_size, "chunk_cells": plan.chunk_cells}
        manifest = Manifest(prepared.identity, about(prepared), resolved)
    job = _job(prepared, model, manifest)
    encode = _encoder(request)
    with open_output(request.output, manifest, found) as output:
        kept = sum(plan.chunk_size(chunk) for chunk in found.kept)
        progress = Progress(plan.cells_in(output.position.chunks) + kept, found.rows, found.failed)
        yield progress
        if prepared.ranks is not None:
            missing = [chunk for chunk in range(output.position.chunks, plan.n_chunks) if chunk not in found.kept]
            for shared in lead(prepared.ranks, job, manifest, request.output, encode, missing, progress):
                yield shared
            progress = shared
            output.look_again()
        for chunk in range(output.position.chunks, plan.n_chunks):
            if not output.take(chunk):
                piece = job.piece(chunk, encode)
                output.append(piece)
                progress = progress.plus(plan.chunk_size(chunk), piece.rows, piece.failed)
            yield progress
        output.finish()


def assist(prepared: Prepared) -> None:
    """What the ranks above 0 do instead. Raises ModelError and OutputError."""
    model = load(prepared)
    request, identity = prepared.request, prepared.identity
    job_of = functools.partial(_job, prepared, model)
    support(prepared.ranks, identity, job_of, request.output, _encoder(request))


def load(prepared: Prepared) -> nn.Module:
    """The model, ready to run. Raises ModelError."""
    outline, device = prepared.outline, prepared.device
    return load_weights(outline, dtype=prepared.dtype, device=device, placement=prepared.placement)


def make_job(prepared: Prepared, model: nn.Module, plan: Plan, batch_size: int) -> Job:
    """A job on a plan that may be cut into other chunks than the prepared one."""
    tokenizer, maps = prepared.outline.tokenizer, prepared.maps
    mapping = None if maps is None else maps.maps
    return Job(model, tokenizer, plan, prepared.settings, batch_size=batch_size, mapping=mapping)


def _job(prepared: Prepared, model: nn.Module, manifest: Manifest) -> Job:
    plan = replace(prepared.plan, chunk_cells=manifest.plan["chunk_cells"])
    return make_job(prepared, model, plan, manifest.plan["batch_size"])


def _encoder(request: Request) -> Encode:
    if is_parquet(request.output):
        return parquet.encode
    return lambda records: csv_rows(records, safe=request.csv_safe).encode()
