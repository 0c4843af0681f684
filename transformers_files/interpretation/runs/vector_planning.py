"""What a request says of a file of vectors, checked, and its plan: the counterpart of `planning` for vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..engine.settings import InterpretationSettings
from ..mapping.affine import AffineMap
from ..mapping.checkpoint import MapsFile, check_spaces
from ..models.loading import Outline
from ..models.places import RESIDUAL
from ..prompts.index_selection import Selection
from ..prompts.questions import Prompt
from ..surgery.modes import REPLACING_MODES
from ..vectors.formats import open_vectors
from ..vectors.vector_file import Origin, VectorFile, VectorsError
from .limits import Limits, PlanError
from .planning import build_prompts
from .request import RunRequest
from .vector_plan import VectorPlan
from .vectors import AUTO

_OF_EXAMPLES = ("tokens", "prompt_output_tokens", "source_model", "deep_gain")
_OF_VECTORS = ("tensor", "vector_column", "names", "rows", "strength")
_ROWS = re.compile(r"(\d{0,15}):(\d{0,15})|(\d{1,15})", re.ASCII)
_MOST_STATES = 10_000
"""Of a model that is not known."""
_FEWEST_LETTERS = 4
"""Of a name that is taken for a part of another."""


@dataclass(frozen=True)
class ChosenVectors:
    """The vectors that a run interprets, and how large they are made."""

    file: VectorFile
    rows: range
    strength: float | str
    """A factor, or `vectors.AUTO`."""

    @classmethod
    def of(cls, request: RunRequest) -> ChosenVectors:
        """Raises VectorsError; a file is opened, and read in part alone."""
        assert request.vectors is not None
        if request.strength != AUTO and not math.isfinite(float(request.strength)):
            raise VectorsError(f"strength is {request.strength}: give a finite number, or {AUTO}")
        column, names = request.vector_column, request.names
        file = open_vectors(request.vectors, tensor=request.tensor, column=column, names=names)
        return cls(file, read_rows(request.rows, file), request.strength)

    @property
    def description(self) -> str:
        """In one line."""
        how = f", strength {self.strength}" + (" (chosen for each)" if self.strength == AUTO else "")
        which = f"rows {self.rows.start} to {self.rows.stop - 1}" if len(self.rows) < self.file.n else "all rows"
        origin = self.file.origin
        of = "" if origin is None else f" of {origin.hook}" + (f" of {origin.model}" if origin.model else "")
        return f"interpreting vectors: {which} of {self.file.path}, {self.file.what}{of}{how}"


def read_rows(text: str | None, file: VectorFile) -> range:
    """`0:16384`, `500:`, `7`, of the file's rows; None: all. Raises VectorsError."""
    match = _ROWS.fullmatch(":" if text is None else text.strip())
    if match is None:
        raise VectorsError(f'rows: "{text}" is no range: write 0:16384, 500: or 7, counted from 0')
    if match[3]:
        start, stop = int(match[3]), int(match[3]) + 1
    else:
        start, stop = int(match[1] or 0), int(match[2]) if match[2] else file.n
    if not start < stop <= file.n:
        raise VectorsError(f"rows: {text} selects none, or more than there are: {file.path} has rows 0 to {file.n - 1}")
    return range(start, stop)


def unfitting_options(request: RunRequest) -> Iterator[str]:
    """Why a request's options do not go together, as far as examples or vectors are concerned."""
    if (request.examples is None) == (request.vectors is None):
        yield "give --examples or --vectors" + ("" if request.vectors is None else ", not both")
    for name in _OF_VECTORS if request.vectors is None else _OF_EXAMPLES:
        if getattr(request, name) != getattr(RunRequest, name):
            option = f"--{name.replace('_', '-')}"
            if request.vectors is None:
                yield f"{option} is for vectors: give --vectors, or leave it out"
            else:
                yield f"{option} is for examples: with --vectors leave it out"


def plan_vectors(
    chosen: ChosenVectors,
    outline: Outline,
    prompts: Sequence[Prompt],
    settings: InterpretationSettings,
    *,
    layers: str | None,
    place: str,
    maps: MapsFile | None,
    chunk_cells: int,
    now: datetime,
) -> VectorPlan:
    """Check everything against the model, and plan the work.

    layers, place: the hidden state that the vectors belong to, and where they come from, as the user says it.
    now: the time that chat templates see. Raises PlanError with all problems, MappingError.
    """
    file, limits = chosen.file, Limits.of(outline.skeleton)
    problems: list[str] = []
    own = maps is None  # else they may be another model's, and the map says of which layers
    n_states = limits.n_layers + 1 if own else _MOST_STATES
    layer = None
    if layers is not None:
        try:
            layer = _one_layer(layers, n_states)
        except ValueError as error:
            problems.append(f"layers: {error}; of vectors give the one that they belong to")
    if file.origin is not None:
        problems += _misplaced(file, file.origin, layer, place)
        problems += _of_another_model(file, file.origin, outline.name, limits.n_layers) if own else []
        layer = file.origin.layer
    elif place != RESIDUAL:
        problems.append(f"--place {place} is for examples: with --vectors leave it out")
    if maps is not None:
        if layer is None and not isinstance(maps.maps, AffineMap):
            problems.append(f"mapping {maps.path} has maps by layer: say with --layers which one the vectors belong to")
        check_spaces(maps, n_layers=n_states, source_hidden=file.hidden, hidden=outline.hidden)
        maps.check_layers([] if layer is None else [layer])
    elif file.hidden != outline.hidden:
        whose = "" if file.origin is None or file.origin.model is None else f" (they are of {file.origin.model})"
        problems.append(
            f"{file.path}, {file.what}: vectors of {file.hidden} numbers{whose}; {outline.name} has {outline.hidden}"
        )
    if chosen.strength == AUTO and REPLACING_MODES[settings.replacing_mode].matches_norm:
        problems.append(
            f"the replacing mode {settings.replacing_mode} ignores how large a vector is: leave out --strength {AUTO}"
        )
    if problems:
        raise PlanError(problems)
    built = build_prompts(outline.tokenizer, prompts, limits, settings, now=now)
    samples = None if settings.sampling is None else settings.sampling.samples
    return VectorPlan(file, chosen.rows, built, chunk_cells, samples, layer)


def _one_layer(text: str, n_states: int) -> int:
    """Raises ValueError."""
    chosen = Selection(text).resolve(n_states)
    if len(chosen) > 1:
        raise ValueError(f'"{text}" are several')
    return chosen[0]


def _misplaced(file: VectorFile, origin: Origin, layer: int | None, place: str) -> Iterator[str]:
    """Why vectors of this origin are not what the user says they are."""
    whose = f"{file.path} is of {origin.hook}"
    if place != origin.place:
        given = f"--place {place}" if place != RESIDUAL else "the residual stream"
        yield f"{whose}: found {given}, expected --place {origin.place}"
    if layer is not None and layer != origin.layer:
        yield f"{whose}: found --layers {layer}, expected {origin.layer}: {_where(origin)}"


def _of_another_model(file: VectorFile, origin: Origin, model: str, n_layers: int) -> Iterator[str]:
    """Why they cannot be this model's."""
    whose, last = f"{file.path} is of {origin.hook}", n_layers if origin.place == RESIDUAL else n_layers - 1
    if origin.layer > last:
        yield f"{whose}: expected a model with layer {origin.layer}, and {model} has 0 to {last} ({_where(origin)})"
    if origin.model is not None and not _may_be(origin.model, model):
        yield (
            f"{whose} of the model {origin.model}, not of {model}; if that is the same one, name its folder, or a link "
            f"to it, {Path(origin.model).name}"
        )


def _where(origin: Origin) -> str:
    if origin.place == RESIDUAL:
        return f"{origin.hook} is hidden state {origin.layer}, where 0 is what goes into block 0"
    return f"{origin.hook} is in decoder layer {origin.layer}"


def _may_be(theirs: str, ours: str) -> bool:
    """Whether names may mean one model, or a tuned version of it: `gemma-2-2b`, `google/gemma-2-2b-it`."""
    wanted = _letters(Path(theirs).name)
    parts = [_letters(part) for part in Path(ours).parts]
    return any(wanted in part or (part in wanted and len(part) >= _FEWEST_LETTERS) for part in parts)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
