"""A prepared request, carried out: alone, or as one of several ranks. It can be stopped at any moment and resumed.

    prepared = prepare(request)
    if not prepared.is_complete:
        for progress in run(prepared):
            print(progress.rows)

With several processes rank 0 does this; the others `assist` with the same request, once rank 0 has prepared it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from ..mapping.affine import MappingError
from ..models.adapters import AdapterError
from ..models.loading import ModelError, Outline, load_weights
from ..results import parquet
from ..results.csv_table import csv_rows
from .bulk_vectors import BulkJob
from .csv_writer import is_parquet, open_output
from .grid import Plan
from .identity import about
from .job import ChunkJob, Encode, Job
from .manifest import Manifest
from .preparation import Prepared
from .request import RunRequest
from .source_model import SourceModel
from .vector_plan import VectorPlan
from .work_queue import Progress, lead, support


def run(prepared: Prepared) -> Iterator[Progress]:
    """Load the model and interpret, chunk by chunk, starting where an earlier run stopped.

    Yields how far the run has come, once before the first chunk and after each; by then it is on the disk. Raises
    ModelError, OutputError and RankError; what was yielded stays.
    """
    request, plan, found = prepared.request, prepared.plan, prepared.found
    models = Models.load(prepared)
    manifest = found.manifest
    job = models.job(prepared, plan, request.batch_size if manifest is None else manifest.plan["batch_size"])
    if manifest is None:
        resolved = {"batch_size": job.batch_size, "chunk_cells": plan.chunk_cells}
        manifest = Manifest(prepared.identity, about(prepared), resolved, began=prepared.began.isoformat())
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
            output.rescan()
        for chunk in range(output.position.chunks, plan.n_chunks):
            if not output.take(chunk):
                piece = job.piece(chunk, encode)
                output.append(piece)
                progress = progress.plus(plan.chunk_size(chunk), piece.rows, piece.failed)
            yield progress
        output.finish()


def assist(prepared: Prepared) -> None:
    """What the ranks above 0 do instead. Raises ModelError and OutputError."""
    assert prepared.ranks is not None
    models = Models.load(prepared)
    request, identity = prepared.request, prepared.identity
    job_of = functools.partial(_job, prepared, models)
    support(prepared.ranks, identity, job_of, request.output, _encoder(request))


@dataclass(frozen=True)
class Models:
    """The models of a run, ready to run."""

    model: nn.Module
    source: SourceModel

    @classmethod
    def load(cls, prepared: Prepared) -> Models:
        """Raises ModelError."""
        model = _load(prepared, prepared.outline)
        other = model if prepared.source is None else _load(prepared, prepared.source)
        if prepared.maps is not None:
            try:
                for loaded in (model, other):
                    prepared.maps.check_model(loaded)
            except MappingError as error:
                raise ModelError(str(error)) from error
        if prepared.adapter is not None:
            try:
                model = prepared.adapter.on(model)
            except AdapterError as error:
                raise ModelError(str(error)) from error
        return cls(model, SourceModel(other, prepared.reader.tokenizer, prepared.mapping))

    def job(self, prepared: Prepared, plan: Plan | VectorPlan, batch_size: int | None) -> ChunkJob:
        """On a plan that may be cut into other chunks than the prepared one."""
        if isinstance(plan, VectorPlan):
            assert prepared.vectors is not None
            return BulkJob(
                self.model,
                prepared.outline.tokenizer,
                plan,
                prepared.settings,
                strength=prepared.vectors.strength,
                mapping=prepared.mapping,
                batch_size=batch_size,
            )
        return Job(
            self.model,
            prepared.outline.tokenizer,
            plan,
            prepared.settings,
            batch_size=batch_size,
            source_model=self.source,
        )


def _load(prepared: Prepared, outline: Outline) -> nn.Module:
    placement = prepared.placement and prepared.placement.fitted(outline.skeleton)
    return load_weights(outline, dtype=prepared.dtype, device=prepared.device, placement=placement)


def _job(prepared: Prepared, models: Models, manifest: Manifest) -> ChunkJob:
    plan = replace(prepared.plan, chunk_cells=manifest.plan["chunk_cells"])
    return models.job(prepared, plan, manifest.plan["batch_size"])


def _encoder(request: RunRequest) -> Encode:
    if is_parquet(request.output):
        return parquet.encode
    return lambda records: csv_rows(records, safe=request.csv_safe).encode()
