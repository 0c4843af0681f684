"""The texts that activate features most, from one pass over a corpus.

    texts = read_texts(Path("corpus.jsonl"))
    found = top_contexts(model, tokenizer, texts, sae.activations, layer=12, k=8)
    found.best[17][0].pieces, found.best[17][0].activation

What is kept is k windows of tokens for each feature, and a sample of windows by chance: memory does not grow with the
corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.activations import capture
from ..models.chat_template import encode_prompt
from ..models.places import RESIDUAL
from ..models.token_text import token_pieces
from ..models.tokenizer import Tokenizer

Activations = Callable[[Tensor], Tensor]
"""Hidden states `[n, hidden]`, float32 → activations `[n, features]`."""
BEFORE, AFTER = 15, 8
"""Tokens of a window around the one that activates."""
SAMPLED = 64
"""Windows that are drawn by chance."""
_NOTHING = -1


class CorpusError(ValueError):
    """A file that holds no texts; the message is one line that names it."""


@dataclass(frozen=True)
class Context:
    """A piece of a text, and how strongly a feature answers to one of its tokens."""

    activation: float
    token_ids: tuple[int, ...]
    at: int
    """Which of the tokens activates."""

    def pieces(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """What each token adds to the text."""
        return tuple(token_pieces(tokenizer, self.token_ids))


@dataclass(frozen=True)
class Contexts:
    """What one pass over a corpus found."""

    best: tuple[tuple[Context, ...], ...]
    """Of each feature, the strongest first; at most one of a text, and none that does not activate it."""
    sampled: tuple[Context, ...]
    """By chance, the same for all features; their activation is 0."""
    sampled_activations: Tensor
    """`[sampled, features]`: the largest activation of each feature in the text that the window is of."""

    def inactive(self, feature: int, k: int) -> tuple[Context, ...]:
        """Sampled windows, k at most, of texts that do not activate a feature."""
        silent = (self.sampled_activations[:, feature] <= 0).nonzero()[:k, 0]
        return tuple(self.sampled[int(number)] for number in silent)


def read_texts(path: Path, column: str = "text") -> Iterator[str]:
    """The texts of a corpus one by one: `.jsonl` and `.parquet` by a column, else a file with a text per line.

    A folder of the package `datasets`, as its `save_to_disk` writes it, is read where that is installed. Raises
    CorpusError.
    """
    try:
        if path.is_dir():
            yield from _dataset(path, column)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield _text(json.loads(line), column, f"{path}, line {number}")
        elif path.suffix == ".parquet":
            yield from _parquet(path, column)
        else:
            with path.open(encoding="utf-8") as lines:
                yield from (line.strip() for line in lines if line.strip())
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"corpus {path}: {getattr(error, 'strerror', None) or error}") from error


@torch.no_grad()
def top_contexts(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    activations: Activations,
    *,
    layer: int,
    k: int = 8,
    place: str = RESIDUAL,
    text_tokens: int = 128,
    seed: int = 0,
    on_text: Callable[[int], None] = lambda number: None,
) -> Contexts:
    """The k texts in which each feature is most active.

    Args:
        activations: of a sparse autoencoder, or products with directions: `lambda states: states @ vectors.T`.
        layer, place: of the hidden states, as `capture` takes them.
        text_tokens: of a text no more are read. Its first token does not count: its states are like no others.
        seed: of the windows by chance, a reservoir sample.

    Raises CorpusError for a corpus without a text of two tokens.
    """
    keeper: _Keeper | None = None
    for number, text in enumerate(texts):
        ids = encode_prompt(tokenizer, text, raw=True)[:text_tokens]
        if len(ids) < 2:
            continue
        states = capture(model, torch.tensor([ids]), [layer], list(range(1, len(ids))), place)[0].float()
        found = activations(states)
        keeper = keeper or _Keeper(found.shape[1], k, seed)
        keeper.add(ids, found)
        on_text(number)
    if keeper is None:
        raise CorpusError("the corpus has no text of two tokens or more")
    return keeper.contexts()


class _Keeper:
    """The best windows so far."""

    def __init__(self, features: int, k: int, seed: int) -> None:
        self._k = k
        self._generator = torch.Generator().manual_seed(seed)
        self._values = torch.zeros(features, k)
        self._windows = torch.full((features, k, BEFORE + 1 + AFTER), _NOTHING, dtype=torch.int32)
        self._seen = 0
        self._sampled: list[Tensor] = []
        self._sampled_values: list[Tensor] = []

    def add(self, ids: list[int], found: Tensor) -> None:
        """The activations `[len(ids) − 1, features]` of the tokens behind the first."""
        values, at = found.max(0)
        better = (values > self._values[:, -1]).nonzero()[:, 0]
        windows = _windows(ids, at[better] + 1)
        ordered = torch.cat([self._values[better], values[better, None]], 1).sort(dim=1, descending=True, stable=True)
        both = torch.cat([self._windows[better], windows[:, None]], 1)
        kept = ordered.indices[:, : self._k]
        self._values[better] = ordered.values[:, : self._k]
        self._windows[better] = both.gather(1, kept[..., None].expand(-1, -1, both.shape[-1]))
        self._sample(ids, values)

    def contexts(self) -> Contexts:
        best = tuple(
            tuple(_context(float(value), window) for value, window in zip(values, windows) if value > 0)
            for values, windows in zip(self._values, self._windows)
        )
        sampled = tuple(_context(0.0, window) for window in self._sampled)
        return Contexts(best, sampled, torch.stack(self._sampled_values))

    def _sample(self, ids: list[int], values: Tensor) -> None:
        """A window of the text takes the place of another with the chance that each text is to have."""
        place = self._seen if self._seen < SAMPLED else self._number(self._seen + 1)
        at = torch.tensor([1 + self._number(len(ids) - 1)])
        self._seen += 1
        if place >= SAMPLED:
            return
        window = _windows(ids, at)[0]
        if place == len(self._sampled):
            self._sampled.append(window)
            self._sampled_values.append(values)
        else:
            self._sampled[place], self._sampled_values[place] = window, values

    def _number(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._generator))


def _windows(ids: list[int], at: Tensor) -> Tensor:
    """Tokens around each place, `[len(at), BEFORE + 1 + AFTER]`; nothing where the text has none."""
    padded = torch.full((BEFORE + len(ids) + AFTER,), _NOTHING, dtype=torch.int32)
    padded[BEFORE : BEFORE + len(ids)] = torch.tensor(ids, dtype=torch.int32)
    return padded[at[:, None] + torch.arange(BEFORE + 1 + AFTER)]


def _context(activation: float, window: Tensor) -> Context:
    before = [int(token) for token in window[:BEFORE] if token != _NOTHING]
    rest = [int(token) for token in window[BEFORE:] if token != _NOTHING]
    return Context(activation, (*before, *rest), len(before))


def _text(content: object, column: str, where: str) -> str:
    text = content.get(column) if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise CorpusError(f"corpus {where}: no text in {column!r}")
    return text


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise CorpusError(f"corpus {path}: no column {column!r}; there are {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for number, text in enumerate(batch.column(0).to_pylist()):
                yield _text({column: text}, column, f"{path}, row {number} of a batch")


def _dataset(path: Path, column: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError:
        raise CorpusError(
            f"corpus {path} is a folder, which needs the package datasets; pip install datasets"
        ) from None
    for number, row in enumerate(datasets.load_from_disk(str(path))):
        yield _text(dict(row), column, f"{path}, row {number}")
