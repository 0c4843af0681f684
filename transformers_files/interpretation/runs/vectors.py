"""Vectors of any origin as cells: a probe, a steering vector, a feature of a sparse autoencoder.

job = VectorJob(model, tokenizer, vector_rows(model, vectors), prompts, InterpretationSettings())
ready = job.ready(job.addresses)
found = interpret_chunk(model, [one.cell for one in ready], job.settings, batch_size=64)
records = [job.record(one, interpretation) for one, interpretation in zip(ready, found)]
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from ..engine.cell import Cell, Interpretation
from ..engine.norm_search import choose_strengths
from ..engine.settings import InterpretationSettings
from ..mapping.affine import AnyMap, map_vectors
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.record import Record
from .job import interpretation_fields
from .vector_plan import VectorAddress

AUTO = "auto"


@dataclass(frozen=True)
class ReadyVector:
    """A vector that can be interpreted."""

    address: VectorAddress
    cell: Cell


class VectorJob:
    """Vectors, each through each of the interpretation prompts."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        rows: torch.Tensor,
        prompts: Sequence[InterpretationPrompt],
        settings: InterpretationSettings,
        *,
        names: Sequence[str] | None = None,
        strength: float | str = 1.0,
        batch_size: int = 1,
        pairwise: bool = False,
    ) -> None:
        """rows: `[n, hidden]` or `[n, placeholders, hidden]`, as `vector_rows` gives them.

        names, strength, pairwise: see `interpret_vectors`. batch_size: of the search for strengths. Raises ValueError.
        """
        self.settings = settings
        self._model, self._tokenizer, self._rows = model, tokenizer, rows
        self._names = [f"vector {index}" for index in range(len(rows))] if names is None else list(map(str, names))
        if len(self._names) != len(rows):
            raise ValueError(f"{len(self._names)} names for {len(rows)} vectors")
        if strength != AUTO and not (isinstance(strength, (int, float)) and math.isfinite(strength)):
            raise ValueError(f'strength is {strength!r}: give a finite number, or "{AUTO}"')
        if strength == AUTO and rows.ndim == 3:
            raise ValueError(
                f'strength "{AUTO}" is for one vector at all placeholders, not for one at each; give a number'
            )
        self._strength = strength if isinstance(strength, (int, float)) else None  # None: chosen for each
        self._batch_size = batch_size
        self._chosen: dict[InterpretationPrompt, list[float]] = {}
        self._shown: dict[InterpretationPrompt, tuple[str, ...]] = {}
        numbers = range(settings.sampling.samples) if settings.sampling else [None]
        if pairwise and len(prompts) != len(rows):
            raise ValueError(f"pairwise: {len(prompts)} interpretation prompts for {len(rows)} vectors; give one each")
        with_vectors = zip(prompts, range(len(rows))) if pairwise else product(prompts, range(len(rows)))
        each = product(with_vectors, numbers)
        self.addresses = [VectorAddress(prompt, index, number) for (prompt, index), number in each]

    def ready(self, addresses: Sequence[VectorAddress]) -> list[ReadyVector]:
        """What the engine needs of some of them, in their order."""
        return [ReadyVector(one, self._cell(one)) for one in addresses]

    def record(self, ready: ReadyVector, interpretation: Interpretation) -> Record:
        """A vector with its interpretation."""
        address = ready.address
        names = self._shown_names(address.prompt)
        return Record(
            name="vectors_1",
            category="vectors",
            prompt="",
            prompt_output="",
            prompt_token_list=names,
            layer_idx=None,
            token_idx=address.index,
            current_token=names[address.index],
            token_source="vector",
            sample=address.sample,
            **interpretation_fields(self._tokenizer, address.prompt, self.settings, interpretation),
        )

    def _cell(self, address: VectorAddress) -> Cell:
        factor = self._factors(address.prompt)[address.index]
        return Cell(self._rows[address.index] * factor, address.prompt, seed=self._seed(address))

    def _factors(self, prompt: InterpretationPrompt) -> list[float]:
        """What each vector is multiplied with."""
        if self._strength is not None:
            return [self._strength] * len(self._rows)
        if prompt not in self._chosen:
            rows = list(self._rows)
            choices = choose_strengths(self._model, prompt, rows, self.settings, batch_size=self._batch_size)
            self._chosen[prompt] = [choice.factor for choice in choices]
        return self._chosen[prompt]

    def _shown_names(self, prompt: InterpretationPrompt) -> tuple[str, ...]:
        """The names, with the factors that were chosen."""
        if prompt not in self._shown:
            fixed = self._strength is not None
            chosen = [""] * len(self._rows) if fixed else [f" × {factor:.3g}" for factor in self._factors(prompt)]
            self._shown[prompt] = tuple(map("".join, zip(self._names, chosen)))
        return self._shown[prompt]

    def _seed(self, address: VectorAddress) -> int | None:
        """Of a sample; None where there is no sampling."""
        sampling = self.settings.sampling
        if sampling is None or address.sample is None:
            return None
        content = bytes(self._rows[address.index].detach().cpu().contiguous().view(torch.uint8).numpy())
        cell = address.prompt.input_ids, address.prompt.insert_locations, hashlib.sha256(content).hexdigest()
        return sampling.seed_of(repr(cell), address.sample)


def vector_rows(
    model: nn.Module, vectors: torch.Tensor | Sequence[torch.Tensor], mapping: AnyMap = None
) -> torch.Tensor:
    """`[n, hidden]` or `[n, placeholders, hidden]`, checked and mapped. Raises ValueError."""
    rows = vectors if isinstance(vectors, torch.Tensor) else _stacked(vectors)
    rows = rows[None] if rows.ndim == 1 and len(rows) else rows  # one vector
    if len(rows) == 0:
        raise ValueError("no vectors: give at least one")
    hidden = model.get_input_embeddings().weight.shape[-1]
    if mapping is not None and rows.ndim in (2, 3):
        return map_vectors(mapping, rows.flatten(0, -2), None, hidden).unflatten(0, rows.shape[:-1])
    if rows.ndim not in (2, 3) or rows.shape[-1] != hidden or not rows.is_floating_point():
        shape = " × ".join(map(str, rows.shape))
        raise ValueError(
            f"vectors are {rows.dtype}, {shape}; expected floating point numbers, n × {hidden}, or n × placeholders × "
            f"{hidden}"
        )
    return rows


def _stacked(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several vectors as one tensor."""
    try:
        each = [torch.as_tensor(vector) for vector in vectors]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"vectors must be tensors, or numbers that make one: {error}") from None
    shapes = dict.fromkeys(tuple(vector.shape) for vector in each)
    if len(shapes) > 1:
        raise ValueError(f"vectors must be of one shape, not of {len(shapes)}: {', '.join(map(str, shapes))}")
    return torch.stack(each) if each else torch.empty(0)
