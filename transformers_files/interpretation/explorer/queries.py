"""What clients ask for, checked by the same rules as `interpret`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..engine.sampling import Sampling
from ..engine.settings import InterpretationSettings
from ..errors.suggestions import did_you_mean
from ..models.chat_template import read_prompt
from ..models.layer_spec import insert_layer_of
from ..models.places import RESIDUAL
from ..models.tokenizer import Tokenizer
from ..prompts.examples import Example
from ..prompts.index_selection import Selection
from ..prompts.interpretation_prompt import BUILT_IN, InterpretationPromptSpec
from ..runs.job import Job, Read, plan_job
from ..runs.limits import Limits
from ..runs.planning import build_prompts
from ..runs.source_model import SourceModel
from ..runs.vectors import VectorJob, vector_rows
from .defaults import SETTINGS, Defaults

MOST_CHARACTERS = 200_000
MOST_NEW_TOKENS = 256
MOST_VECTORS = 256
SEARCHED = 32
"""Vectors whose strengths are searched at once."""
ASK, LOGIT = "ask", "logit"
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Indices = Annotated[str, Field(max_length=8000)] | int | Annotated[list[int], Field(max_length=2000)]
Numbers = float | Annotated[list[float], Field(max_length=1000)]
Layers = int | Annotated[list[int], Field(max_length=1000)] | Literal["same"]


Q = TypeVar("Q", bound="Query")


class Query(BaseModel):
    """Unknown keys are refused: a misspelt setting would be a default in silence. So is "1" where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def filled(self: Q, defaults: Defaults) -> Q:
        """With what the server was started with in place of what the client has left out."""
        known = {**defaults.settings, "layers": defaults.layers}
        missing = {name for name in known if name in type(self).model_fields} - self.model_fields_set
        return self.model_copy(update={name: known[name] for name in missing})


class PromptText(Query):
    """An interpretation prompt of the client's own."""

    text: Text
    placeholder: str = "_"
    chat: bool = False
    reply: str = ""
    stop: str = ""

    def spec(self) -> InterpretationPromptSpec:
        """Raises ValueError."""
        return InterpretationPromptSpec("custom", **self.model_dump())


class SettingsQuery(Query):
    """How vectors are interpreted; see `interpret` for what each means."""

    interpretation_prompt: str | PromptText = SETTINGS["interpretation_prompt"]
    """A name that `/models` lists, or one of the client's own. Never a path: of the server's files a client reads
    none."""
    question: Text | None = None
    """Asked about the embedding, in the {question} field of the interpretation prompt; of one without, of "ask"."""
    insert_layer: Layers = SETTINGS["insert_layer"]
    replacing_mode: str = SETTINGS["replacing_mode"]
    overlay_strength: Numbers = SETTINGS["overlay_strength"]
    guidance: float = SETTINGS["guidance"]
    plausibility: float = SETTINGS["plausibility"]
    deep_gain: float = SETTINGS["deep_gain"]
    max_new_tokens: int = Field(30, le=MOST_NEW_TOKENS)
    samples: int = 0
    """Drawn at random, of each cell; 0: the best tokens, once."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def settings(self) -> InterpretationSettings:
        """Raises ValueError."""
        return InterpretationSettings(
            insert_layer=insert_layer_of(self.insert_layer),
            replacing_mode=self.replacing_mode,
            overlay_strength=self.overlay_strength,
            max_new_tokens=self.max_new_tokens,
            guidance=self.guidance,
            plausibility=self.plausibility,
            deep_gain=self.deep_gain,
            sampling=Sampling.of(self.samples, self.temperature, self.top_p, self.seed),
        )

    def spec(self, known: Mapping[str, InterpretationPromptSpec] = BUILT_IN) -> InterpretationPromptSpec:
        """With the question, if there is one. known: those that a name may mean. Raises ValueError."""
        spec = self._chosen(known)
        if self.question is None:
            return spec
        return (spec if spec.has_field else BUILT_IN[ASK]).asking(self.question)

    def _chosen(self, known: Mapping[str, InterpretationPromptSpec]) -> InterpretationPromptSpec:
        if isinstance(self.interpretation_prompt, PromptText):
            return self.interpretation_prompt.spec()
        name = self.interpretation_prompt
        if name not in known:
            names = ", ".join(known)
            raise ValueError(f"unknown interpretation prompt {name!r}{did_you_mean(name, known)}; built in: {names}")
        return known[name]


class TokenizeQuery(Query):
    """A prompt."""

    prompt: Text
    raw: bool = False

    def token_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """As the model sees it."""
        return read_prompt(tokenizer, self.prompt, raw=self.raw)[1]


class CellsQuery(SettingsQuery):
    """Cells of a prompt's grid, layers by tokens."""

    prompt: Text
    raw: bool = False
    minus: Text | None = None
    """Another prompt; then differences are interpreted."""
    layers: Indices = "all"
    tokens: Indices = "all"
    place: str = RESIDUAL

    def job(self, interpreter: nn.Module, source: SourceModel, read: Read, defaults: Defaults | None = None) -> Job:
        """Checked as `interpret` checks its arguments. Its cells are for the scheduler. Raises ValueError.

        interpreter: the model that interprets, with a reader's adapter; source: the one that reads.
        """
        layers = selection("layers", self.layers)
        own = (defaults or Defaults()).for_layers(layers.text, source.model, source.tokenizer)
        job = plan_job(
            interpreter,
            source.tokenizer,
            [Example(name="example_1", prompt=self.prompt, raw=self.raw, minus=self.minus)],
            [self.spec(own.prompts)],
            self.settings(),
            layers=layers,
            tokens=selection("tokens", self.tokens),
            prompt_output_tokens=1,
            hook_point=self.place,
            batch_size=1,
            source_model=source,
            read=read,
        )
        if own.maps is not None:
            own.maps.check_layers(job.plan.layers)
        return job


class CompareQuery(CellsQuery):
    """Differences of two prompts."""

    minus: Text


class TableQuery(CellsQuery):
    """Cells as a file."""

    format: Literal["csv", "parquet", "page", "python"] = "csv"


class LensQuery(TokenizeQuery):
    """What the model's own head makes of hidden states."""

    layers: Indices = "all"
    tokens: Indices = "all"
    """Of the prompt alone."""
    k: int = Field(3, ge=1, le=50)
    """How many tokens of each cell."""
    lens: str = LOGIT
    """"logit", or one that the server was started with."""


class ScoreQuery(CellsQuery):
    """One cell, and a text that it may mean."""

    layers: int
    tokens: int
    text: str = Field(min_length=1, max_length=2000)
    """What the interpretation would say, with a space in front where a word begins."""


class VectorsQuery(SettingsQuery):
    """Vectors of the model's hidden space."""

    vectors: list[list[float]] = Field(min_length=1, max_length=MOST_VECTORS)
    names: list[Text] | None = None
    strength: float | Literal["auto"] = 1.0

    def job(self, model: nn.Module, tokenizer: Tokenizer, defaults: Defaults | None = None) -> VectorJob:
        """Checked as `interpret_vectors` checks its arguments. Its cells are for the scheduler. Raises ValueError.

        model: the one that interprets.
        """
        own = defaults or Defaults()
        if len(sizes := sorted({len(vector) for vector in self.vectors})) > 1:
            raise ValueError(f"the vectors have {', '.join(map(str, sizes[:5]))} numbers; give vectors of one size")
        settings = self.settings()
        prompts = build_prompts(tokenizer, [self.spec(own.prompts)], Limits.of(model), settings)
        rows = vector_rows(model, torch.tensor(self.vectors, dtype=torch.float32), own.mapping)
        return VectorJob(
            model, tokenizer, rows, prompts, settings, names=self.names, strength=self.strength, batch_size=SEARCHED
        )


def selection(name: str, chosen: str | int | list[int]) -> Selection:
    """What a client has chosen. Raises ValueError that says of what."""
    try:
        return Selection.of(chosen)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
