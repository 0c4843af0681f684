"""Several interpretations of one cell, drawn at random, seen together: what most of them say, and how many do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .record import Record


@dataclass(frozen=True)
class Agreement:
    """The samples of one cell. How many say the same is known as self-consistency (Wang and others 2022,
    arXiv:2203.11171)."""

    record: Record
    """The first sample with the most frequent text; of texts that are equally frequent the one that came first."""
    alike: int
    """Samples with this text, itself included, whatever their case and white space; 0 where none has a text."""
    samples: int

    @property
    def share(self) -> float:
        """From above 0 to 1; 0 where no sample has an interpretation."""
        return self.alike / self.samples


def agreement(samples: Sequence[Record]) -> Agreement:
    """Of the samples of one cell, at least one. Samples that went wrong agree with none."""
    said = [record for record in samples if record.has_interpretation]
    if not said:
        return Agreement(samples[0], 0, len(samples))
    texts = [_same(record.interpretation_text) for record in said]
    ((text, alike),) = Counter(texts).most_common(1)
    return Agreement(said[texts.index(text)], alike, len(samples))


def agreements(records: Iterable[Record]) -> list[Agreement]:
    """One for each cell of which there are samples, in the order of their first ones."""
    cells: dict[tuple, list[Record]] = {}
    for record in records:
        if record.sample is not None:
            cells.setdefault(_cell(record), []).append(record)
    return [agreement(samples) for samples in cells.values()]


def _cell(record: Record) -> tuple:
    place = record.layer_idx, record.token_idx, record.token_source
    return record.name, record.prompt, record.repeat_prompt_name, record.repeat_prompt, record.inserted_at, *place


def _same(text: str) -> str:
    return " ".join(text.split()).casefold()
