"""From a plan of a file's vectors to records, chunk by chunk; a chunk's vectors are read when it is computed.

job = BulkJob(model, tokenizer, plan, InterpretationSettings(), strength=AUTO, batch_size=64)
records = job.records(0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..engine.cell import Interpretation
from ..engine.decode import interpret_chunk, resolve_batch_size
from ..engine.settings import InterpretationSettings
from ..mapping.affine import AnyMap, map_vectors
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.record import Record
from .job import ChunkJob
from .vector_plan import VectorAddress, VectorPlan
from .vectors import AUTO, ReadyVector, VectorJob


class BulkJob(ChunkJob):
    """A plan of a file's vectors."""

    plan: VectorPlan

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        plan: VectorPlan,
        settings: InterpretationSettings,
        *,
        strength: float | str = 1.0,
        mapping: AnyMap = None,
        batch_size: int | None = None,
    ) -> None:
        """strength: as for `VectorJob`. mapping: what vectors go through first.

        batch_size: None: as many as memory suggests.
        """
        self.plan = plan
        self.settings = settings
        self.batch_size = resolve_batch_size(model, plan.prompts, settings) if batch_size is None else batch_size
        self._model, self._tokenizer = model, tokenizer
        self._strength = strength
        self._mapping = mapping

    def records(self, chunk: int) -> list[Record]:
        """The records of one chunk of the plan, in its order. Raises VectorsError for a file that has changed."""
        addresses = self.plan.chunk(chunk)
        start, stop = min(one.index for one in addresses), max(one.index for one in addresses) + 1
        rows, names = self._rows(start, stop), self.plan.file.names(start, stop)
        problems = {index: self._problem(row) for index, row in enumerate(rows, start)}
        jobs: dict[tuple[InterpretationPrompt, int], tuple[VectorJob, int]] = {}
        for prompt in dict.fromkeys(one.prompt for one in addresses):
            indices = list(dict.fromkeys(one.index for one in addresses if one.prompt == prompt))
            for strength, fails in ((self._strength, False), (1.0, True)):
                chosen = [index for index in indices if (problems[index] is not None) == fails]
                if chosen:
                    places = [index - start for index in chosen]
                    job = self._job(prompt, rows[places], [names[place] for place in places], strength)
                    jobs |= {(prompt, index): (job, number) for number, index in enumerate(chosen)}
        ready: list[ReadyVector] = []
        for one in addresses:
            job, number = jobs[one.prompt, one.index]
            ready += job.ready([VectorAddress(one.prompt, number, one.sample)])
        cells = [each.cell for one, each in zip(addresses, ready) if problems[one.index] is None]
        found = iter(interpret_chunk(self._model, cells, self.settings, batch_size=self.batch_size))
        records = []
        for one, each in zip(addresses, ready):
            problem = problems[one.index]
            interpretation = next(found) if problem is None else Interpretation((), (), (), problem)
            record = jobs[one.prompt, one.index][0].record(each, interpretation)
            # Without the names of all vectors of the job, which is one of this chunk alone.
            block = self.plan.block_name(one.index)
            records.append(replace(record, name=block, token_idx=one.index, prompt_token_list=()))
        return records

    def _rows(self, start: int, stop: int) -> torch.Tensor:
        """`[stop − start, hidden]`, in the space of the model."""
        rows = self.plan.file.rows(start, stop)
        if self._mapping is None:
            return rows
        hidden = self._model.get_input_embeddings().weight.shape[-1]
        # One by one: what a vector becomes must not depend, in the last digits, on those that it is read with.
        return torch.cat([map_vectors(self._mapping, row[None], self.plan.layer, hidden) for row in rows])

    def _problem(self, row: torch.Tensor) -> str | None:
        """Why no strength can be chosen for a vector; whatever else is wrong with one, the engine says."""
        if self._strength != AUTO or 0 < (norm := float(row.detach().float().norm())) < math.inf:
            return None
        if not torch.isfinite(row).all():
            return f"the vector has NaN or infinity in {row.dtype}"
        return f"the vector has norm {norm:g}: no strength can be chosen"

    def _job(
        self, prompt: InterpretationPrompt, rows: torch.Tensor, names: Sequence[str], strength: float | str
    ) -> VectorJob:
        return VectorJob(
            self._model,
            self._tokenizer,
            rows,
            [prompt],
            self.settings,
            names=names,
            strength=strength,
            batch_size=self.batch_size,
        )
