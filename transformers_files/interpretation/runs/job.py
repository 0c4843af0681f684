"""From a plan to records, chunk by chunk.

    job = Job(model, tokenizer, plan, InterpretationSettings(), batch_size=64)
    for chunk in range(plan.n_chunks):
        records = job.records(chunk)

The records of a chunk depend on nothing but the job: not on the chunks that were computed before, here or elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..engine.cell import Cell, Interpretation
from ..engine.decode import interpret_chunk, resolve_batch_size
from ..engine.settings import InterpretationSettings
from ..mapping.affine import map_vectors
from ..models.families import decoder_layers
from ..models.hook_points import check_writable
from ..models.layer_inputs import check_evaluation_mode
from ..models.layer_spec import SAME
from ..models.places import RESIDUAL, check_hook_point
from ..models.tokenizer import Tokenizer
from ..prompts.examples import Example
from ..prompts.index_selection import Segment, Selection
from ..prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from ..prompts.stop import LOOP
from ..results.record import Record, interpretation_pieces, token_source
from .chunks import Chunked
from .grid import Address, Plan, Source
from .limits import Limits
from .planning import make_plan
from .request import CHUNK_CELLS
from .shards import Piece
from .source_activations import SourceActivations
from .source_model import SourceModel

Encode = Callable[[Sequence[Record]], bytes]
"""How records become a part of a file."""
Read = Callable[[Source, Plan], SourceActivations]
"""How a source is run through its model."""


@dataclass(frozen=True)
class Ready:
    """A cell that can be interpreted."""

    address: Address
    reading: SourceActivations
    """Of its source."""
    cell: Cell


class ChunkJob(ABC):
    """A plan of any kind of cells, with the model that computes it."""

    plan: Chunked
    batch_size: int

    @abstractmethod
    def records(self, chunk: int) -> list[Record]:
        """The records of one chunk of the plan, in its order."""

    def all_records(self) -> Iterator[Record]:
        """The records of every chunk."""
        for chunk in range(self.plan.n_chunks):
            yield from self.records(chunk)

    def piece(self, chunk: int, encode: Encode) -> Piece:
        """The records of one chunk as a file of this form has them."""
        records = self.records(chunk)
        failed = sum(not record.has_interpretation for record in records)
        return Piece(chunk, len(records), failed, encode(records))


class Job(ChunkJob):
    """A plan of examples."""

    plan: Plan

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        plan: Plan,
        settings: InterpretationSettings,
        *,
        batch_size: int | None = None,
        source_model: SourceModel | None = None,
        read: Read | None = None,
    ) -> None:
        """source_model: None: the model itself. batch_size: None: as many as memory suggests.

        read: what gives the sources' activations, wherever it keeps them; None: the job reads each source itself.
        """
        self.plan = plan
        self.batch_size = resolve_batch_size(model, plan.all_prompts, settings) if batch_size is None else batch_size
        self._model = model
        self._tokenizer = tokenizer
        self.settings = settings
        self._source_model = SourceModel(model, tokenizer) if source_model is None else source_model
        self._read = read
        self._reading: SourceActivations | None = None

    def records(self, chunk: int) -> list[Record]:
        """The records of one chunk of the plan, in its order; none for cells of output tokens that do not exist."""
        ready = self.ready(self.plan.chunk(chunk))
        cells = [one.cell for one in ready]
        interpretations = interpret_chunk(self._model, cells, self.settings, batch_size=self.batch_size)
        return [self.record(one, interpretation) for one, interpretation in zip(ready, interpretations)]

    def ready(self, addresses: Sequence[Address]) -> list[Ready]:
        """What the engine needs of cells of the plan, in their order; without those that do not exist."""
        found = []
        for address in addresses:
            reading = self.reading(address.source)
            if reading.has(address.token):
                read = reading.vectors(address.layer, address.token)
                vector = self._vector(read, address.layer, segment=isinstance(address.token, Segment))
                layer = address.layer if self.settings.insert_layer == SAME else None
                cell = Cell(vector, address.prompt, layer, self._depth(address), self._seed(address))
                found.append(Ready(address, reading, cell))
        return found

    def _depth(self, address: Address) -> float | None:
        """Relative depth of a source layer; None of mapped vectors, which are as shallow as their insert layer, and of
        segments, whose last vector is no more than the others."""
        source = self._source_model
        if source.mapping is not None or isinstance(address.token, Segment):
            return None
        return address.layer / len(decoder_layers(source.model))

    def _seed(self, address: Address) -> int | None:
        """The seed of a sample; None where there is no sampling."""
        sampling = self.settings.sampling
        if sampling is None or address.sample is None:
            return None
        return sampling.seed_of(address.cell(self.plan.hook_point), address.sample)

    def _vector(self, vectors: torch.Tensor, layer: int, *, segment: bool) -> torch.Tensor:
        """A source's vectors `[1 or 2, n, hidden]`, or the differences of two, in the space of the model: `[hidden]`,
        or of segments `[n, hidden]`.

        Both are mapped before they are subtracted: the offset of an affine map does not belong in a difference.
        """
        hidden = self._model.get_input_embeddings().weight.shape[-1]
        mapped = map_vectors(self._source_model.mapping, vectors.flatten(0, 1), layer, hidden)
        mapped = mapped.unflatten(0, vectors.shape[:2])
        if len(mapped) == 2:
            mapped = mapped.to(torch.promote_types(mapped.dtype, torch.float32))
            mapped = mapped[:1] - mapped[1:]
        return mapped[0] if segment else mapped[0, 0]

    def reading(self, source: Source) -> SourceActivations:
        """A source that has been run through its model. Only the last one is kept: cells come by their sources."""
        if self._read is not None:
            return self._read(source, self.plan)
        if self._reading is None or self._reading.source is not source:
            self._reading = None
            self._reading = SourceActivations(self._source_model, source, self.plan)
        return self._reading

    def record(self, ready: Ready, interpretation: Interpretation) -> Record:
        """A cell with its interpretation."""
        address, reading = ready.address, ready.reading
        example = address.source.example
        return Record(
            name=example.name,
            category=example.category,
            prompt=address.source.text,
            prompt_output=reading.output_text,
            prompt_token_list=reading.tokens,
            layer_idx=address.layer,
            token_idx=reading.index(address.token),
            current_token=reading.name(address.token),
            token_source=token_source(reading.kind(address.token), self.plan.hook_point),
            answer=example.answer,
            sample=address.sample,
            **interpretation_fields(self._tokenizer, address.prompt, self.settings, interpretation),
        )


def plan_job(
    model: nn.Module,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    settings: InterpretationSettings,
    *,
    layers: Selection,
    tokens: Selection,
    prompt_output_tokens: int,
    hook_point: str = RESIDUAL,
    batch_size: int | None = None,
    source_model: SourceModel,
    read: Read | None = None,
) -> Job:
    """A job for models that are loaded already, checked before any work; arguments as for `interpret` and `Job`.

    Raises ValueError; PlanError with all problems of the plan.
    """
    for loaded in (model, source_model.model):
        check_evaluation_mode(loaded)
    check_hook_point(hook_point)
    plan = make_plan(
        tokenizer,
        examples,
        prompts,
        Limits.of(model),
        settings,
        layers=layers,
        tokens=tokens,
        prompt_output_tokens=prompt_output_tokens,
        chunk_cells=CHUNK_CELLS,
        hook_point=hook_point,
        source_model=source_model,
    )
    check_writable(model, settings.layers_of(plan.layers), settings.insert_place)
    return Job(model, tokenizer, plan, settings, batch_size=batch_size, source_model=source_model, read=read)


def interpretation_fields(
    tokenizer: Tokenizer, prompt: InterpretationPrompt, settings: InterpretationSettings, interpretation: Interpretation
) -> dict[str, Any]:
    """The fields of a Record about how a vector was interpreted and the result."""
    pieces = interpretation_pieces(tokenizer, prompt, interpretation.token_ids)
    return {
        "repeat_prompt": prompt.text,
        "repeat_prompt_name": prompt.name,
        "question": prompt.question,
        "interpretation": interpretation.token_ids,
        "interpretation_text": "".join(pieces),
        "interpretation_weights": interpretation.relevancy,
        "interpretation_prob": interpretation.probabilities,
        "insert_layer": settings.insert_layer,
        "insert_place": settings.insert_place,
        "status": LOOP if interpretation.ended_by == LOOP else interpretation.status,
        "interpretation_tokens": pieces,
    }
