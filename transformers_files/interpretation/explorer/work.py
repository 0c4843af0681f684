"""What tickets ask for: the cells of a prompt's grid, or vectors."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.cell import Interpretation
from ..report.grid import columns_of
from ..results.record import Record
from ..runs.grid import Address
from ..runs.job import Job, Ready
from ..runs.vector_plan import VectorAddress
from ..runs.vectors import ReadyVector, VectorJob
from .messages import Begun
from .readings import roughly_first


class GridWork:
    """The cells of a job with one source and one interpretation prompt, a rough grid first."""

    def __init__(self, job: Job) -> None:
        self.prompts = job.plan.all_prompts
        (self._source,) = job.plan.sources
        self.settings = job.settings
        self._job = job
        self.addresses = _roughly_first(job)

    def begin(self) -> Begun:
        """The tokens of the source that there are: its output may have ended before the last that were planned."""
        reading = self._job.reading(self._source)
        there = [token for token in self._source.tokens if reading.has(token)]
        tokens = [(reading.index(token), reading.name(token), reading.kind(token)) for token in there]
        cells = sum(reading.has(address.token) for address in self.addresses)
        return Begun(self._job.plan.layers, columns_of(tokens, reading.tokens), cells)

    def ready(self, addresses: Sequence[Address]) -> list[Ready]:
        """What the engine needs of some cells."""
        return self._job.ready(addresses)

    def record(self, ready: Ready, interpretation: Interpretation) -> Record:
        """A cell with its interpretation."""
        return self._job.record(ready, interpretation)


class VectorWork:
    """The vectors of a job with one interpretation prompt."""

    def __init__(self, job: VectorJob) -> None:
        self.addresses = job.addresses
        self.prompts = tuple(dict.fromkeys(address.prompt for address in job.addresses))
        self.settings = job.settings
        self._job = job

    def begin(self) -> Begun:
        """There is no grid."""
        return Begun((), (), len(self.addresses))

    def ready(self, addresses: Sequence[VectorAddress]) -> list[ReadyVector]:
        """What the engine needs of some vectors."""
        return self._job.ready(addresses)

    def record(self, ready: ReadyVector, interpretation: Interpretation) -> Record:
        """A vector with its interpretation."""
        return self._job.record(ready, interpretation)


def _roughly_first(job: Job) -> list[Address]:
    turn = {layer: number for number, layer in enumerate(roughly_first(job.plan.layers))}
    planned = [address for chunk in range(job.plan.n_chunks) for address in job.plan.chunk(chunk)]
    return sorted(planned, key=lambda address: turn[address.layer])
