"""What is interpreted, cell by cell, known before any weights are loaded.

A cell is one (example, interpretation prompt, layer, token, sample); cells are numbered in that order, the last varying
fastest. A chunk is a run of consecutive cells, the unit of computing, resuming and distributing work: which
cells it has depends on the settings alone. A cell of a generated token that turns out not to exist, because the model
ended its output earlier, stays in the plan and yields no record.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import accumulate, chain

from torch import nn

from ..engine.settings import InterpretationSettings
from ..errors.problems import ProblemsError
from ..models.chat_template import ChatTemplateError, read_prompt
from ..models.families import RESIDUAL, UnsupportedModelError, decoder, decoder_layers
from ..models.layer_spec import SAME
from ..models.rope import short_positions
from ..models.tokenizer import Tokenizer
from ..prompts.examples import Example
from ..prompts.index_selection import Position, Segment, Selection
from ..prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from ..results.record import MINUS
from .source_model import SourceModel

CAPTURED_BYTES = 256 * 2**20
"""Hidden states held at once, unless those of a single layer are more."""
LARGE_PLAN = 1_000_000
"""Cells. A smaller plan is seldom for a thousand ranks, and small chunks cost more per cell."""
SMALLEST_CHUNK = 80
_RANKS = 1000


class PlanError(ProblemsError):
    """Examples or prompts that this model cannot take."""


@dataclass(frozen=True)
class Limits:
    """What a model can take in."""

    n_layers: int
    positions: int | None
    """The longest sequence; None where the model's configuration does not say."""
    vocabulary: int | None
    short_positions: int | None = None
    """The longest text that is read by the angles for short ones; None where there is one set. See `models.rope`."""

    @classmethod
    def of(cls, model: nn.Module) -> Limits:
        """Of a model, with or without weights. Raises UnsupportedModelError."""
        config = decoder(model).config
        if getattr(model.config, "return_dict", True) is False:
            raise UnsupportedModelError(
                "the model's configuration has return_dict false, so that its parts hand each other tuples where they "
                "expect names; set config.return_dict = True"
            )
        positions, vocabulary = (getattr(config, name, None) for name in ("max_position_embeddings", "vocab_size"))
        return cls(len(decoder_layers(model)), positions, vocabulary, short_positions(model))

    def problems(self, input_ids: Sequence[int], new_tokens: int, read_first: int | None = None) -> Iterator[str]:
        """Why a prompt of these token ids, continued by `new_tokens` tokens, cannot be run.

        read_first: how many of its tokens are read in a pass of their own; None: all.
        """
        if not input_ids:
            yield "has no tokens"
        if self.positions is not None and len(input_ids) + new_tokens > self.positions:
            yield f"has {len(input_ids)} tokens and {new_tokens} new ones; the model takes {self.positions}"
        if self.vocabulary is not None and max(input_ids, default=0) >= self.vocabulary:
            yield f"has token id {max(input_ids)}, the model knows {self.vocabulary}: is it the model's own tokenizer?"
        if self.short_positions is not None:
            first, last = read_first or len(input_ids), len(input_ids) + new_tokens
            if first <= self.short_positions < last:
                yield (
                    f"is read from {first} to {last} tokens, and after {self.short_positions} the model turns all "
                    "positions by other angles than those that its cache then has; be shorter, or begin beyond"
                )


@dataclass(frozen=True)
class Subtrahend:
    """The other prompt of a difference, as the model sees it."""

    input_ids: tuple[int, ...]
    tokens: tuple[Position, ...]
    """What is subtracted from each of the source's tokens."""


@dataclass(frozen=True)
class Source:
    """An example as the model sees it."""

    example: Example
    text: str
    """Of a difference both prompts, with a minus sign on a line of its own between them."""
    input_ids: tuple[int, ...]
    tokens: Sequence[Position]
    """Ascending positions to interpret; from `len(input_ids)` on they are those of generated tokens. Then ranges, the
    means over them, and segments."""
    minus: Subtrahend | None = None

    @cached_property
    def segment_lengths(self) -> frozenset[int]:
        """Of the segments among its tokens."""
        tokens = () if isinstance(self.tokens, range) else self.tokens
        return frozenset(len(token) for token in tokens if isinstance(token, Segment))

    @property
    def n_vectors(self) -> int:
        """Hidden embeddings that are read of a layer."""
        return sum(len(token) if isinstance(token, Segment) else 1 for token in self.tokens)

    @cached_property
    def digest(self) -> str:
        """Equal for sources with the same tokens."""
        ids = self.input_ids, self.minus and self.minus.input_ids
        return hashlib.sha256(repr(ids).encode()).hexdigest()


@dataclass(frozen=True)
class Address:
    """Where a cell is."""

    source: Source
    prompt: InterpretationPrompt
    layer: int
    """Index into the n_layers + 1 hidden states, or of the decoder layer whose other hook point is read."""
    token: Position
    """A position, those that are averaged over, or those that go into a placeholder each."""
    sample: int | None = None
    """Its number among the samples of a cell; None where there is no sampling."""

    def cell(self, place: str) -> str:
        """What is interpreted, and through which prompt: equal in all plans that have it."""
        prompt = self.prompt.input_ids, self.prompt.insert_locations
        return repr((self.source.digest, prompt, place, self.layer, self.token))


@dataclass(frozen=True)
class Plan:
    """All cells, and how they are cut into chunks."""

    sources: tuple[Source, ...]
    prompts: tuple[InterpretationPrompt, ...]
    layers: tuple[int, ...]
    """Ascending; see `Address.layer`."""
    prompt_output_tokens: int
    """How many tokens the model adds to each source, at most."""
    chunk_cells: int
    place: str = RESIDUAL
    """Where in a layer embeddings are read; one of `families.HOOK_POINTS`."""
    captured_bytes: int = CAPTURED_BYTES
    samples: int | None = None
    """Of each cell; None: its only interpretation is not drawn at random."""
    segment_prompts: Mapping[int, tuple[InterpretationPrompt, ...]] = field(default_factory=dict)
    """The prompts for segments of each length."""

    @cached_property
    def _ends(self) -> list[int]:
        """For each source the number of cells up to and including its own."""
        per_token = len(self.prompts) * len(self.layers) * self.per_token
        return list(accumulate(len(source.tokens) * per_token for source in self.sources))

    @property
    def per_token(self) -> int:
        """Interpretations of one embedding through one prompt."""
        return self.samples or 1

    @property
    def all_prompts(self) -> tuple[InterpretationPrompt, ...]:
        """Also those for segments."""
        return tuple(dict.fromkeys([*self.prompts, *chain.from_iterable(self.segment_prompts.values())]))

    @property
    def n_cells(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _starts(self) -> list[int]:
        """For each chunk the number of its first cell; at the end that of all cells."""
        return [0, *accumulate(chunk_sizes(self.n_cells, self.chunk_cells))]

    @property
    def n_chunks(self) -> int:
        return len(self._starts) - 1

    def cells_in(self, chunks: int) -> int:
        """How many cells the first chunks have."""
        return self._starts[chunks]

    def chunk_size(self, index: int) -> int:
        """How many cells one chunk has."""
        return self._starts[index + 1] - self._starts[index]

    def chunk(self, index: int) -> list[Address]:
        """The cells of one chunk, in order."""
        return [self._address(number) for number in range(self._starts[index], self._starts[index + 1])]

    def _address(self, number: int) -> Address:
        index = bisect_right(self._ends, number)
        source = self.sources[index]
        within = number - (self._ends[index - 1] if index else 0)
        rest, sample = divmod(within, self.per_token)
        rest, token = divmod(rest, len(source.tokens))
        prompt, layer = divmod(rest, len(self.layers))
        drawn = None if self.samples is None else sample
        position = source.tokens[token]
        prompts = self.segment_prompts[len(position)] if isinstance(position, Segment) else self.prompts
        return Address(source, prompts[prompt], self.layers[layer], position, drawn)


def chunk_sizes(n_cells: int, chunk_cells: int) -> Iterator[int]:
    """How many cells each chunk has.

    The last quarter of a million cells of a large plan comes in chunks that shrink with what is left (guided
    self-scheduling, Polychronopoulos and Kuck 1987), so that a thousand ranks end at nearly the same time. The number
    of ranks that there are is not known here, nor may it count. `scripts/dealing.py` simulates what it brings.
    """
    left = n_cells
    while left:
        size = chunk_cells
        if n_cells >= LARGE_PLAN:
            size = min(size, max(SMALLEST_CHUNK, left // _RANKS))
        yield min(size, left)
        left -= min(size, left)


def make_plan(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    *,
    layers: Selection,
    tokens: Selection,
    prompt_output_tokens: int,
    chunk_cells: int,
    place: str = RESIDUAL,
    source_model: SourceModel | None = None,
    now: datetime | None = None,
) -> Plan:
    """Check everything against the model's limits and its tokenizer, and plan the work.

    `tokens` "all" means those of the prompts and of their generated outputs; anything else selects among the prompts'.
    Of differences the prompts' tokens alone are taken, each of its parts in both prompts.
    source_model: what reads the examples, where it is another model; with or without weights.
    now: the time that chat templates see; None: the present, the same for all.
    Raises PlanError with all problems.
    """
    now = datetime.now() if now is None else now
    source_tokenizer = tokenizer if source_model is None else source_model.tokenizer
    source_limits = limits if source_model is None else Limits.of(source_model.model)
    problems: list[str] = []
    if prompt_output_tokens < 0:
        problems.append(f"prompt_output_tokens is {prompt_output_tokens}: it cannot be less than 0")
    for name, times in Counter(example.name for example in examples).items():
        if times > 1:
            problems.append(f'{times} examples are named "{name}"; their rows could not be distinguished')
    chosen: tuple[int, ...] = ()
    try:
        chosen = layers.resolve(source_limits.n_layers + (place == RESIDUAL))
    except ValueError as error:
        problems.append(f"layers: {error}")
    if settings.insert_layer == SAME and chosen and chosen[-1] >= limits.n_layers:
        problems.append(
            f"insert layer {SAME}: hidden state {chosen[-1]} comes after the last decoder layer, so it is no layer's "
            f'input; choose among layers ":{limits.n_layers}"'
        )
    built = _build(tokenizer, prompts, limits, settings, problems, now)
    sources = tuple(
        _source(source_tokenizer, example, tokens, prompt_output_tokens, source_limits, problems, now)
        for example in examples
    )
    lengths = sorted(frozenset().union(*(source.segment_lengths for source in sources)))
    segment_prompts = {
        length: _build(tokenizer, prompts, limits, settings, problems, now, vectors=length) for length in lengths
    }
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    samples = None if settings.sampling is None else settings.sampling.samples
    return Plan(
        sources,
        built,
        chosen,
        prompt_output_tokens,
        chunk_cells,
        place,
        samples=samples,
        segment_prompts=segment_prompts,
    )


def build_prompts(
    tokenizer: Tokenizer,
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    *,
    vectors: int | None = None,
) -> tuple[InterpretationPrompt, ...]:
    """The interpretation prompts in this tokenizer's tokens, for vectors. Raises PlanError with all problems.

    vectors: how many each cell has, one per placeholder; None: one for all placeholders.
    """
    problems: list[str] = []
    if settings.insert_layer == SAME:
        problems.append(f"insert layer {SAME}: vectors come from no layer; name the one to insert them at")
    built = _build(tokenizer, prompts, limits, settings, problems, datetime.now(), vectors=vectors)
    if problems:
        raise PlanError(problems)
    return built


def _build(
    tokenizer: Tokenizer,
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    problems: list[str],
    now: datetime,
    *,
    vectors: int | None = None,
) -> tuple[InterpretationPrompt, ...]:
    """vectors: as for `build_prompts`."""
    layers = settings.insert_layer if isinstance(settings.insert_layer, tuple) else (settings.insert_layer,)
    for layer in layers:
        if layer != SAME and layer >= limits.n_layers:
            problems.append(f"insert layer {layer} is out of range: 0 to {limits.n_layers - 1}")
    built: list[InterpretationPrompt] = []
    for prompt in prompts:
        try:
            if not isinstance(prompt, InterpretationPrompt):
                prompt = prompt.holding(vectors or 1).build(tokenizer, now=now)
        except ValueError as error:
            problems.append(str(error))
            continue
        found = limits.problems(prompt.input_ids, settings.max_new_tokens, min(prompt.insert_locations))
        problems += [f'interpretation prompt "{prompt.name}": {problem}' for problem in found]
        places, strengths = len(prompt.insert_locations), settings.overlay_strength
        if vectors is not None and places != vectors:
            problems.append(
                f'interpretation prompt "{prompt.name}" has {places} placeholder{"s" * (places > 1)} for {vectors} '
                'vectors; give as many, or a prompt with one placeholder and "repeated": true'
            )
        if isinstance(strengths, tuple) and len(strengths) != places:
            problems.append(
                f'interpretation prompt "{prompt.name}" has {places} placeholders and overlay_strength '
                f"{len(strengths)} numbers; give one number for all, or one per placeholder"
            )
        if (prompt.name, prompt.question) in ((other.name, other.question) for other in built):
            asked = "" if prompt.question is None else " and ask the same question"
            problems.append(
                f'two interpretation prompts are named "{prompt.name}"{asked}; their rows could not be distinguished'
            )
        built.append(prompt)
    return tuple(built)


def _source(
    tokenizer: Tokenizer,
    example: Example,
    tokens: Selection,
    new_tokens: int,
    limits: Limits,
    problems: list[str],
    now: datetime,
) -> Source:
    try:
        text, ids = read_prompt(tokenizer, example.prompt, raw=example.raw, now=now)
        if example.minus is not None:
            other_text, other_ids = read_prompt(tokenizer, example.minus, raw=example.raw, now=now)
    except ChatTemplateError as error:
        problem = f"{error}; raw prompts go without it"
        problems += [problem] if problem not in problems else []
        return Source(example, "", (), ())
    problems += [f"{example.name}: {problem}" for problem in limits.problems(ids, new_tokens)]
    try:
        if example.minus is None:
            chosen = range(len(ids) + new_tokens) if tokens.is_all else tokens.positions(len(ids))
            return Source(example, text, ids, chosen)
        problems += [f'{example.name}: "minus" {problem}' for problem in limits.problems(other_ids, 0)]
        pairs = tokens.pairs(len(ids), len(other_ids))
        minus = Subtrahend(other_ids, tuple(pairs.values()))
        return Source(example, f"{text}\n{MINUS.strip()}\n{other_text}", ids, tuple(pairs), minus)
    except ValueError as error:
        problems.append(f"{example.name}: tokens: {error}")
    return Source(example, text, ids, ())
