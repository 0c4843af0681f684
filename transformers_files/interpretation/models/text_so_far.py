"""A substitute for a key/value cache where a model has none, or none that can be shared or split by rows.

    text = TextSoFar(beginning)                      # instead of the cache of a beginning
    logits, cache = next_logits(model, rest, text)   # reads the beginning too

It is passed around like a cache; the price is that its tokens are read again: once with a model that caches, whose
cache then takes over, and in every step with others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextSoFar:
    """Tokens that the next pass reads again."""

    input_ids: Tensor | None = None
    """`[rows, columns]`; None before the first pass."""
    model_caches: bool = True
    """Whether the next pass returns a cache; otherwise the text has to be read in every pass."""
    surgery: Callable[[list[int]], AbstractContextManager] | None = None
    """Makes, for rows of the pass that it took place in, the context in which they are read again."""
    origins: Tensor | None = None
    """`[rows]`, on the CPU: which row of that pass each row comes from."""

    @property
    def read_ids(self) -> Tensor:
        """`input_ids` after the first pass."""
        assert self.input_ids is not None
        return self.input_ids

    def followed_by(self, input_ids: Tensor) -> Tensor:
        """The text and what comes next, `[rows, columns]`."""
        return input_ids if self.input_ids is None else torch.cat([self.input_ids, input_ids], dim=1)

    def grown_to(self, input_ids: Tensor) -> TextSoFar:
        """A copy with a longer text."""
        return replace(self, input_ids=input_ids)

    def repeated(self, rows: int) -> TextSoFar:
        """One row, repeated that many times."""
        return replace(self, input_ids=self.input_ids.expand(rows, -1)) if self.input_ids is not None else self

    def selected(self, rows: Tensor) -> TextSoFar:
        """Only the given rows `[n]`."""
        text = self.read_ids.index_select(0, rows.to(self.read_ids.device))
        origins = None if self.origins is None else self.origins.index_select(0, rows.cpu())
        return replace(self, input_ids=text, origins=origins)

    def under_surgery(self, surgery: Callable[[list[int]], AbstractContextManager]) -> TextSoFar:
        """A copy that is read under surgery from now on."""
        return replace(self, surgery=surgery, origins=torch.arange(len(self.read_ids)))

    def context(self) -> AbstractContextManager:
        """The context to read it in."""
        if self.surgery is None or self.origins is None:
            return nullcontext()
        return self.surgery(self.origins.tolist())
