"""What can be checked of a request before its model is known.

checked = check(request)        # raises RequestError with all problems
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

from ..engine.kernels.switch import are_used
from ..engine.sampling import Sampling
from ..engine.settings import InterpretationSettings
from ..errors.problems import ProblemsError, problems_of
from ..mapping.checkpoint import MapsFile
from ..models.adapters import Adapter
from ..models.device_map import Placement
from ..models.places import check_hook_point
from ..prompts.examples import ExamplesFile
from ..prompts.index_selection import ALL, Selection
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from ..prompts.questions import Prompt, ask
from ..prompts.spec_files import find_spec
from ..readers.formats import find_reader
from ..readers.reader import Reader
from .csv_writer import check_output, is_parquet
from .manifest import OutputError
from .request import RunRequest
from .vector_planning import ChosenVectors, unfitting_options


class RequestError(ProblemsError):
    """Everything that has to be fixed before a run can begin."""


@dataclass(frozen=True)
class Checked:
    """What can be known of a request without its model."""

    examples: ExamplesFile | None
    """None where vectors are interpreted in their place."""
    vectors: ChosenVectors | None
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
    vectors: ChosenVectors | None = None
    specs: list[InterpretationPromptSpec] = []
    asked: Sequence[Prompt] = ()
    selections: dict[str, Selection] = {}
    settings = InterpretationSettings()
    with collected(problems):
        are_used()
    with collected(problems):
        check_output(request.output)
    if request.output.suffix.lower() not in (".csv", ".parquet"):
        problems.append(f"the output {request.output} must be named .csv or .parquet")
    if is_parquet(request.output) and importlib.util.find_spec("pyarrow") is None:
        problems.append("Parquet needs the package pyarrow; run: python -m pip install pyarrow")
    if is_parquet(request.output) and request.csv_safe:
        problems.append("csv_safe is for CSV; spreadsheets do not run what is in Parquet")
    problems += unfitting_options(request)
    with collected(problems):
        if request.examples is not None:
            examples = ExamplesFile.read(request.examples)
            examples = examples.numbered_by_category() if request.names_by_category else examples
    with collected(problems):
        if request.vectors is not None:
            vectors = ChosenVectors.of(request)
    for name in request.interpretation_prompts:
        with collected(problems):
            specs.append(find_spec(name))
    reader = None
    if request.reader is not None:
        with collected(problems):
            reader = find_reader(request.reader)
        problems += [f"the reader sets {name}: leave it out" for name in _set_by_reader(request)]
    else:
        with collected(problems):
            asked = ask(specs, request.questions)
    maps = None
    if request.mapping is not None:
        with collected(problems):
            maps = MapsFile.read(request.mapping)
    layers = (ALL if maps is None else maps.layers) if request.layers is None else request.layers
    for name, text in (("layers", layers), ("tokens", request.tokens)):
        with collected(problems, f"{name}: "):
            selections[name] = Selection(text)
    with collected(problems):
        check_hook_point(request.place)
    with collected(problems):
        settings = _settings(request)
    if request.batch_size is not None and request.batch_size < 1:
        problems.append(f"batch_size is {request.batch_size}: it must be at least 1")
    placement = None
    if request.device_map is not None:
        with collected(problems):
            placement = Placement.read(
                request.device_map, max_memory=request.max_memory, offload_folder=request.offload_folder
            )
        if request.device != "auto":
            problems.append("give a device or a device map, not both")
    elif request.max_memory is not None or request.offload_folder is not None:
        problems.append("max_memory and offload_folder need a device map; give one, such as auto")
    adapter = None
    if request.reader_adapter is not None:
        with collected(problems):
            adapter = Adapter.find(request.reader_adapter)
        if request.device_map is not None:
            problems.append("a reader adapter shares a model's weights, which a device map may put elsewhere: give one")
    if problems:
        raise RequestError(problems)
    chosen = selections["layers"], selections["tokens"]
    return Checked(examples, vectors, tuple(asked), *chosen, settings, placement, maps, adapter, reader)


@contextmanager
def collected(problems: list[str], prefix: str = "") -> Iterator[None]:
    """Add what an error says to the problems."""
    try:
        yield
    except (ValueError, OutputError) as error:
        problems += [prefix + problem for problem in problems_of(error)]


def _set_by_reader(request: RunRequest) -> Iterator[str]:
    """What a request asks for, and a reader says."""
    names = (
        "interpretation_prompts",
        "insert_layer",
        "insert_place",
        "replacing_mode",
        "overlay_strength",
        "guidance",
        "deep_gain",
    )
    for name in (*names, "reader_adapter", "mapping", "device_map"):
        if getattr(request, name) != getattr(RunRequest, name):
            yield name


def _settings(request: RunRequest) -> InterpretationSettings:
    """Raises ValueError."""
    sampling = Sampling.of(request.samples, request.temperature, request.top_p, request.seed)
    names = [one.name for one in fields(InterpretationSettings) if one.name != "sampling"]
    return InterpretationSettings(**{name: getattr(request, name) for name in names}, sampling=sampling)
