"""A request, checked as far as it can be before weights are loaded; `runner` carries it out.

prepared = prepare(request)          # raises RequestError with all problems; writes nothing, loads no weights
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import torch

from ..engine.kernels.switch import are_used
from ..engine.sampling import Sampling
from ..engine.settings import InterpretationSettings
from ..errors.problems import ProblemsError, problems_of
from ..mapping.affine import AnyMap
from ..mapping.checkpoint import MapsFile, check_spaces
from ..models.adapters import Adapter
from ..models.device_map import Placement
from ..models.families import RESIDUAL, check_hook_point, hook_point_module
from ..models.loading import ModelError, Outline, read_outline, resolve_device, resolve_dtype
from ..prompts.examples import ExamplesFile
from ..prompts.index_selection import ALL, Selection
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from ..prompts.questions import Prompt, ask
from ..prompts.spec_files import find_spec
from ..readers.formats import find_reader
from ..readers.reader import Reader
from .coordination import Ranks
from .csv_writer import Found, check_output, find_begun, inspect_output, is_parquet
from .grid import Plan
from .identity import about, identity_of, where
from .limits import Limits
from .manifest import OutputError
from .planning import make_plan
from .request import RunRequest
from .source_model import SourceModel


class RequestError(ProblemsError):
    """Everything that has to be fixed before a run can begin."""


@dataclass(frozen=True)
class Checked:
    """What can be known of a request without its model."""

    examples: ExamplesFile
    prompts: tuple[Prompt, ...]
    """Filled with every question."""
    layers: Selection
    tokens: Selection
    settings: InterpretationSettings
    placement: Placement | None
    maps: MapsFile | None
    adapter: Adapter | None
    reader: Reader | None


def check(request: RunRequest) -> Checked:
    """Everything that can be checked without the model. Raises RequestError with all problems."""
    problems: list[str] = []
    examples: ExamplesFile | None = None
    specs: list[InterpretationPromptSpec] = []
    asked: Sequence[Prompt] = ()
    selections: dict[str, Selection] = {}
    settings = InterpretationSettings()
    with _collected(problems):
        are_used()
    with _collected(problems):
        check_output(request.output)
    if request.output.suffix.lower() not in (".csv", ".parquet"):
        problems.append(f"the output {request.output} must be named .csv or .parquet")
    if is_parquet(request.output) and importlib.util.find_spec("pyarrow") is None:
        problems.append("Parquet needs the package pyarrow; run: python -m pip install pyarrow")
    if is_parquet(request.output) and request.csv_safe:
        problems.append("csv_safe is for CSV; spreadsheets do not run what is in Parquet")
    with _collected(problems):
        examples = ExamplesFile.read(request.examples)
    for name in request.interpretation_prompts:
        with _collected(problems):
            specs.append(find_spec(name))
    reader = None
    if request.reader is not None:
        with _collected(problems):
            reader = find_reader(request.reader)
        problems += [f"the reader sets {name}: leave it out" for name in _set_by_reader(request)]
    else:
        with _collected(problems):
            asked = ask(specs, request.questions)
    maps = None
    if request.mapping is not None:
        with _collected(problems):
            maps = MapsFile.read(request.mapping)
    layers = (ALL if maps is None else maps.layers) if request.layers is None else request.layers
    for name, text in (("layers", layers), ("tokens", request.tokens)):
        with _collected(problems, f"{name}: "):
            selections[name] = Selection(text)
    with _collected(problems):
        check_hook_point(request.place)
    with _collected(problems):
        settings = _settings(request)
    if request.batch_size is not None and request.batch_size < 1:
        problems.append(f"batch_size is {request.batch_size}: it must be at least 1")
    placement = None
    if request.device_map is not None:
        with _collected(problems):
            placement = Placement.read(
                request.device_map, max_memory=request.max_memory, offload_folder=request.offload_folder
            )
        if request.device != "auto":
            problems.append("give a device or a device map, not both")
    elif request.max_memory is not None or request.offload_folder is not None:
        problems.append("max_memory and offload_folder need a device map; give one, such as auto")
    adapter = None
    if request.reader_adapter is not None:
        with _collected(problems):
            adapter = Adapter.find(request.reader_adapter)
        if request.device_map is not None:
            problems.append("a reader adapter shares a model's weights, which a device map may put elsewhere: give one")
    if problems:
        raise RequestError(problems)
    chosen = selections["layers"], selections["tokens"]
    return Checked(examples, tuple(asked), *chosen, settings, placement, maps, adapter, reader)


@dataclass(frozen=True)
class Prepared:
    """A request that can be run."""

    request: RunRequest
    outline: Outline
    source: Outline | None
    """The source model's outline, where that is another model."""
    plan: Plan
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
    with _collected(problems):
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
        n_layers = Limits.of(reader.skeleton).n_layers
        check_spaces(checked.maps, n_layers=n_layers, source_hidden=reader.hidden, hidden=outline.hidden)
        checked, mapping = _with_reader(checked, request, outline)
        began = _begun(request) or datetime.now() if began is None else began
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
        identity = identity_of(request, checked, outline, source, plan, dtype)
        found = Found()
        if ranks is None or ranks.leads:
            found = inspect_output(request.output, identity, overwrite=request.overwrite)
        if found.manifest is not None:
            plan = replace(plan, chunk_cells=found.manifest.plan["chunk_cells"])
        if checked.adapter is not None:
            checked.adapter.check(outline.skeleton)
        how = checked.settings, checked.placement, checked.maps, checked.adapter, checked.reader, mapping
        return Prepared(request, outline, source, plan, *how, device, dtype, identity, found, began, ranks)
    raise RequestError(problems)


@contextmanager
def _collected(problems: list[str], prefix: str = "") -> Iterator[None]:
    try:
        yield
    except (ValueError, OutputError) as error:
        problems += [prefix + problem for problem in problems_of(error)]


def _set_by_reader(request: RunRequest) -> Iterator[str]:
    """What a request asks for, and a reader says."""
    names = ("interpretation_prompts", "insert_layer", "replacing_mode", "overlay_strength", "guidance", "deep_gain")
    for name in (*names, "reader_adapter", "mapping", "device_map"):
        if getattr(request, name) != getattr(RunRequest, name):
            yield name


def _with_reader(checked: Checked, request: RunRequest, outline: Outline) -> tuple[Checked, AnyMap]:
    """What a reader says of this model, in the place of what the request does; and the mapping. Raises ValueError."""
    if checked.reader is None:
        return checked, None if checked.maps is None else checked.maps.maps
    fitted = checked.reader.fit(outline.skeleton, outline.tokenizer, request.layers)
    as_published = replace(
        checked,
        prompts=tuple(ask([fitted.prompt], request.questions)),
        layers=Selection(fitted.layers),
        settings=replace(checked.settings, **fitted.settings),
        adapter=fitted.adapter,
    )
    return as_published, fitted.mapping


def _settings(request: RunRequest) -> InterpretationSettings:
    """Raises ValueError."""
    sampling = Sampling.of(request.samples, request.temperature, request.top_p, request.seed)
    names = [one.name for one in fields(InterpretationSettings) if one.name != "sampling"]
    return InterpretationSettings(**{name: getattr(request, name) for name in names}, sampling=sampling)


def _begun(request: RunRequest) -> datetime | None:
    """When the run that this request resumes began. Raises OutputError."""
    manifest = None if request.overwrite else find_begun(request.output)
    return None if manifest is None or manifest.began is None else datetime.fromisoformat(manifest.began)
