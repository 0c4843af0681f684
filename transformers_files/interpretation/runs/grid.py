"""What is interpreted, cell by cell, known before any weights are loaded.

A cell is one (example, interpretation prompt, layer, token, sample); cells are numbered in that order, the last varying
fastest. A cell of a generated token that turns out not to exist, because the model ended its output earlier, stays in
the plan and yields no record.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain, product

from ..models.places import RESIDUAL
from ..prompts.examples import Example
from ..prompts.index_selection import Position, Segment
from ..prompts.interpretation_prompt import InterpretationPrompt
from .chunks import Chunked

CAPTURED_BYTES = 256 * 2**20
"""Hidden states held at once, unless those of a single layer are more."""


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
        """The lengths of the segments among its tokens."""
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
    """Which cell: its source, prompt, layer, tokens and sample."""

    source: Source
    prompt: InterpretationPrompt
    layer: int
    """Index into the n_layers + 1 hidden states, or of the decoder layer whose other hook point is read."""
    token: Position
    """A position, those that are averaged over, or those that go into a placeholder each."""
    sample: int | None = None
    """Its number among the samples of a cell; None where there is no sampling."""

    def cell(self, hook_point: str) -> str:
        """What is interpreted, and through which prompt: equal in all plans that have it."""
        prompt = self.prompt.input_ids, self.prompt.insert_locations
        return repr((self.source.digest, prompt, hook_point, self.layer, self.token))


@dataclass(frozen=True)
class Plan(Chunked):
    """All cells of examples."""

    sources: tuple[Source, ...]
    prompts: tuple[InterpretationPrompt, ...]
    layers: tuple[int, ...]
    """Ascending; see `Address.layer`."""
    prompt_output_tokens: int
    """How many tokens the model adds to each source, at most."""
    chunk_cells: int
    hook_point: str = RESIDUAL
    """Where in a layer embeddings are read; one of `places.HOOK_POINTS`."""
    captured_bytes: int = CAPTURED_BYTES
    samples: int | None = None
    """The number of samples of each cell; None: its only interpretation is not sampled."""
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
        """The interpretation prompts, including those for segments."""
        return tuple(dict.fromkeys([*self.prompts, *chain.from_iterable(self.segment_prompts.values())]))

    @property
    def n_cells(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def example_names(self) -> list[str]:
        """In their order."""
        return [source.example.name for source in self.sources]

    def prompt_runs(self) -> Iterator[tuple[InterpretationPrompt, int]]:
        """All cells in order, as runs of a number of cells with the same interpretation prompt."""
        for source in self.sources:
            for number, prompt in enumerate(self.prompts):
                if not source.segment_lengths:
                    yield prompt, len(self.layers) * len(source.tokens) * self.per_token
                    continue
                for _, token in product(self.layers, source.tokens):  # a prompt's tokens depend on the cell's
                    yield self._prompt(number, token), self.per_token

    def chunk(self, index: int) -> list[Address]:
        """The cells of one chunk, in order."""
        return [self._address(number) for number in self.numbers(index)]

    def _address(self, number: int) -> Address:
        index = bisect_right(self._ends, number)
        source = self.sources[index]
        within = number - (self._ends[index - 1] if index else 0)
        rest, sample = divmod(within, self.per_token)
        rest, token = divmod(rest, len(source.tokens))
        prompt, layer = divmod(rest, len(self.layers))
        drawn = None if self.samples is None else sample
        position = source.tokens[token]
        return Address(source, self._prompt(prompt, position), self.layers[layer], position, drawn)

    def _prompt(self, number: int, token: Position) -> InterpretationPrompt:
        """One of the interpretation prompts, as it is for a token or a segment."""
        return (self.segment_prompts[len(token)] if isinstance(token, Segment) else self.prompts)[number]
