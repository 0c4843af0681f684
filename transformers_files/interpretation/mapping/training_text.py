"""Training data for a translator: states of texts that a model samples, and the tokens that it generates after each.

spoken = sample_own_text(model, tokenizer, [24], OwnTextSettings())
spoken.states[24], spoken.tokens, spoken.shares
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import input_device, next_logits
from ..models.kv_cache import empty_cache
from ..models.layer_inputs import check_evaluation_mode
from ..models.thread_hooks import input_hook
from ..models.tokenizer import Tokenizer

OPENINGS = (
    *("The", "In", "A", "It", "One", "This", "There is", "When", "The first", "The most", "People", "My", "She"),
    *("He", "They", "Many", "The city", "The name of", "The word", "Q: What", "Who", "The country", "An", "At", "From"),
    *("The largest", "The history of", "The book", "In the year", "Scientists", "A famous", "The river", "The color"),
    *("The animal", "The language", "The author", "The music", "The king", "The game", "The food", "The company"),
    *("Once upon a time", "The element", "The meaning of", "The team", "The president", "The mountain", "The law"),
)
"""What sampled texts begin with."""
SKIPPED = 4
"""Positions at a text's beginning, where a state carries little."""
BEST = 16
"""Tokens that are kept of the model's distribution after a state."""
ROWS = 256
"""Texts that are sampled at once."""


@dataclass(frozen=True)
class OwnTextSettings:
    """How much text, and what is kept of it."""

    openings: tuple[str, ...] = field(default_factory=lambda: OPENINGS)
    texts_per_opening: int = 80
    text_tokens: int = 32
    temperature: float = 0.8
    most_per_token: int = 100
    """States that are followed by one and the same token: commas would be most of them."""

    def __post_init__(self) -> None:
        if self.text_tokens <= SKIPPED or min(len(self.openings), self.texts_per_opening, self.most_per_token) < 1:
            raise ValueError(f"{self}: texts of more than {SKIPPED} tokens, and at least one opening, text and state")
        if not self.temperature > 0:
            raise ValueError(f"{self}: a temperature above 0, or all texts of an opening are the same")


@dataclass(frozen=True, eq=False)
class OwnText:
    """n positions of sampled texts, shuffled."""

    states: dict[int, Tensor]
    """Decoder layer → its inputs `[n, hidden]`, in the model's dtype, on the CPU."""
    tokens: Tensor
    """`[n, BEST]`: what the model would most probably put next, the best one first."""
    shares: Tensor
    """`[n, BEST]`: their probabilities, float32, scaled to a sum of 1."""


@torch.no_grad()
def sample_own_text(
    model: nn.Module, tokenizer: Tokenizer, layers: Sequence[int], settings: OwnTextSettings
) -> OwnText:
    """The same on every call."""
    generator = torch.Generator().manual_seed(0)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    best: list[tuple[Tensor, Tensor]] = []
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(input_hook(decoder_layers(model)[layer], _keep_last(seen[layer])))
        for rows in _batches(tokenizer, settings):
            steps = settings.text_tokens - len(rows[0])
            for logits, _ in _said_next(model, rows, settings, generator):
                best.append(logits.topk(min(BEST, logits.shape[-1])))
            skipped = SKIPPED - min(len(rows[0]), SKIPPED)
            collected: list[list[Any]] = [best, *seen.values()]
            for kept in collected:
                del kept[len(kept) - steps : len(kept) - steps + skipped]
    tokens, logits = torch.cat([indices for _, indices in best]), torch.cat([values for values, _ in best])
    chosen = _balanced(tokens[:, 0], settings.most_per_token, generator)
    states = {layer: torch.cat(kept)[chosen] for layer, kept in seen.items()}
    return OwnText(states, tokens[chosen], logits[chosen].softmax(-1))


@torch.no_grad()
def sample_texts(model: nn.Module, tokenizer: Tokenizer, settings: OwnTextSettings) -> Tensor:
    """The texts themselves: token ids `[n, text_tokens]`, openings included; the same on every call."""
    generator = torch.Generator().manual_seed(0)
    texts = [
        torch.cat([torch.tensor(rows), *(step for _, step in _said_next(model, rows, settings, generator))], 1)
        for rows in _batches(tokenizer, settings)
    ]
    return torch.cat(texts)


def _said_next(
    model: nn.Module, rows: list[list[int]], settings: OwnTextSettings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Step by step the logits `[rows, vocabulary]`, float32 on the CPU, and the tokens `[rows, 1]` drawn from them."""
    check_evaluation_mode(model)
    step, cache = torch.tensor(rows), empty_cache(model)
    for _ in range(settings.text_tokens - len(rows[0])):
        logits, cache = next_logits(model, step.to(input_device(model)), cache)
        logits = logits.float().cpu()
        step = torch.multinomial((logits / settings.temperature).softmax(-1), 1, generator=generator)
        yield logits, step


def _batches(tokenizer: Tokenizer, settings: OwnTextSettings) -> Iterator[list[list[int]]]:
    """Openings of one length, each as often as asked for; those that leave nothing to be sampled are left out."""
    openings = [encode_prompt(tokenizer, opening, raw=True) for opening in settings.openings]
    for length in sorted({len(opening) for opening in openings if len(opening) < settings.text_tokens}):
        rows = [opening for opening in openings if len(opening) == length] * settings.texts_per_opening
        yield from (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))


def _keep_last(states: list[Tensor]) -> Callable[[Tensor], None]:
    return lambda hidden: states.append(hidden[:, -1].cpu())


def _balanced(tokens: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Indices, shuffled, among which no token comes more often than `most` times."""
    counts: Counter[int] = Counter()
    chosen = []
    for index in torch.randperm(len(tokens), generator=generator).tolist():
        token = int(tokens[index])
        counts[token] += 1
        if counts[token] <= most:
            chosen.append(index)
    return torch.tensor(chosen)
