"""A request, checked as far as it can be before weights are loaded; `runner` carries it out.

prepared = prepare(request)          # raises RequestError with all problems; writes nothing, loads no weights
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import torch

from ..engine.settings import InterpretationSettings
from ..mapping.affine import AnyMap
from ..mapping.checkpoint import MapsFile, check_spaces
from ..models.adapters import Adapter
from ..models.device_map import Placement
from ..models.hook_points import check_writable, hook_point_module
from ..models.loading import ModelError, Outline, read_outline, resolve_device, resolve_dtype
from ..models.places import RESIDUAL
from ..prompts.index_selection import Selection
from ..prompts.questions import ask
from ..readers.reader import Reader
from .checking import Checked, RequestError, check, collected
from .coordination import Ranks
from .csv_writer import Found, find_begun, inspect_output
from .grid import Plan
from .identity import about, identity_of, where
from .limits import Limits
from .planning import make_plan
from .request import RunRequest
from .source_model import SourceModel
from .vector_plan import VectorPlan
from .vector_planning import ChosenVectors, plan_vectors


@dataclass(frozen=True)
class Prepared:
    """A request that can be run."""

    request: RunRequest
    outline: Outline
    source: Outline | None
    """The source model's outline, where that is another model."""
    plan: Plan | VectorPlan
    vectors: ChosenVectors | None
    """What is interpreted in place of examples; the plan is a `VectorPlan` then."""
    settings: InterpretationSettings
    placement: Placement | None
    """It fits both models."""
    maps: MapsFile | None
    adapter: Adapter | None
    """An adapter for the interpreting model."""
    published: Reader | None
    """What all of this comes from, if it is a published reader."""
    mapping: AnyMap
    """The mapping of the maps or the reader."""
    device: str
    dtype: torch.dtype
    identity: Mapping[str, Any]
    """What a resumed run must share; see `Manifest.identity`."""
    found: Found
    """What an earlier run of the same identity has left; always empty on ranks above 0."""
    began: datetime
    """When the run did; chat templates that write the date write this one."""
    ranks: Ranks | None = None
    """The processes that share the work; None: this one does it alone."""

    @property
    def reader(self) -> Outline:
        """The outline of the model that reads the examples."""
        return self.source or self.outline

    @property
    def is_complete(self) -> bool:
        return self.found.is_complete

    def notes(self) -> list[str]:
        """What a user should know as it begins."""
        lines = [f"{self.outline.name}: {str(self.dtype).removeprefix('torch.')} on {where(self)}"]
        if self.found.manifest is not None and self.found.rows:
            lines.append(f"resuming after {self.found.rows:,} interpretations for {self.request.output}")
            changed = self.found.manifest.changes(about(self))
            if changed:
                lines.append(f"changed since the run began, so last digits may differ: {'; '.join(changed)}")
        if self.vectors is not None:
            lines.append(self.vectors.description)
        if self.source is not None:
            lines.append(f"interpreting embeddings of {self.source.name}")
        if self.published is not None:
            lines.append(f"recognised {self.published.description}")
        elif self.adapter is not None:
            lines.append(f"interpreting with the adapter {self.adapter.name}")
        if self.maps is not None:
            lines.append(f"mapped by {self.maps.path}, which was fitted for one insert layer, perhaps for one prompt")
        if self.request.csv_safe:
            lines.append("csv-safe: cells that begin with = + - @, tab or carriage return get a ' in front")
        return lines


def prepare(
    request: RunRequest, ranks: Ranks | None = None, *, checked: Checked | None = None, began: datetime | None = None
) -> Prepared:
    """Check everything that can be checked before weights are loaded. Raises RequestError; writes nothing.

    checked: what `check` found for the same request, whatever its model; examples from a pipe can be read only once.
    began: when the run did, by rank 0's clock. None: as the output's manifest says, or now.
    """
    checked = check(request) if checked is None else checked
    problems: list[str] = []
    with collected(problems):
        if request.device_map is not None and ranks is not None and ranks.local_size > 1:
            raise ModelError("a device map needs a machine's devices for one process; start one process per machine")
        outline = read_outline(request.model, trust_remote_code=request.trust_remote_code)
        source = None
        if request.source_model is not None:
            source = read_outline(request.source_model, trust_remote_code=request.trust_remote_code)
        reader = source or outline
        if checked.placement is not None:
            for one in (outline, reader):
                checked.placement.fitted(one.skeleton)
        device = resolve_device(request.device if ranks is None else ranks.device)
        dtype = resolve_dtype(request.dtype, device)
        if checked.vectors is None:
            n_layers = Limits.of(reader.skeleton).n_layers
            check_spaces(checked.maps, n_layers=n_layers, source_hidden=reader.hidden, hidden=outline.hidden)
        checked, mapping = _with_reader(checked, request, outline)
        began = _begun(request) or datetime.now() if began is None else began
        plan = _plan_of(request, checked, outline, reader, began)
        inserted = checked.settings.layers_of(plan.layers if isinstance(plan, Plan) else ())
        check_writable(outline.skeleton, inserted, checked.settings.insert_place)
        identity = identity_of(request, checked, outline, source, plan, dtype)
        found = Found()
        if ranks is None or ranks.leads:
            found = inspect_output(request.output, identity, overwrite=request.overwrite)
        if found.manifest is not None:
            plan = replace(plan, chunk_cells=found.manifest.plan["chunk_cells"])
        if checked.adapter is not None:
            checked.adapter.check(outline.skeleton)
        how = checked.settings, checked.placement, checked.maps, checked.adapter, checked.reader, mapping
        return Prepared(
            request, outline, source, plan, checked.vectors, *how, device, dtype, identity, found, began, ranks
        )
    raise RequestError(problems)


def _plan_of(
    request: RunRequest, checked: Checked, outline: Outline, reader: Outline, began: datetime
) -> Plan | VectorPlan:
    """reader: of the model that reads the examples. Raises ValueError."""
    if checked.vectors is not None:
        return plan_vectors(
            checked.vectors,
            outline,
            checked.prompts,
            checked.settings,
            layers=request.layers,
            place=request.place,
            maps=checked.maps,
            chunk_cells=request.chunk_cells,
            now=began,
        )
    assert checked.examples is not None
    plan = make_plan(
        outline.tokenizer,
        checked.examples.examples,
        checked.prompts,
        Limits.of(outline.skeleton),
        checked.settings,
        layers=checked.layers,
        tokens=checked.tokens,
        prompt_output_tokens=request.prompt_output_tokens,
        chunk_cells=request.chunk_cells,
        hook_point=request.place,
        source_model=SourceModel(reader.skeleton, reader.tokenizer),
        now=began,
    )
    if checked.maps is not None:
        checked.maps.check_layers(plan.layers)
    for layer in plan.layers if request.place != RESIDUAL else ():
        hook_point_module(reader.skeleton, layer, request.place)
    return plan


def _with_reader(checked: Checked, request: RunRequest, outline: Outline) -> tuple[Checked, AnyMap]:
    """What a reader says of this model, in the place of what the request does; and the mapping. Raises ValueError."""
    if checked.reader is None:
        return checked, None if checked.maps is None else checked.maps.maps
    origin = None if checked.vectors is None else checked.vectors.file.origin
    layers = str(origin.layer) if request.layers is None and origin is not None else request.layers
    fitted = checked.reader.fit(outline.skeleton, outline.tokenizer, layers)
    as_published = replace(
        checked,
        prompts=tuple(ask([fitted.prompt], request.questions)),
        layers=Selection(fitted.layers),
        settings=replace(checked.settings, **fitted.settings),
        adapter=fitted.adapter,
    )
    return as_published, fitted.mapping


def _begun(request: RunRequest) -> datetime | None:
    """When the run that this request resumes began. Raises OutputError."""
    manifest = None if request.overwrite else find_begun(request.output)
    return None if manifest is None or manifest.began is None else datetime.fromisoformat(manifest.began)
