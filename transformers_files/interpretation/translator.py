"""A learned translator: an affine map from a source layer to the insert layer, fitted through the model itself.

    maps = fit_translator(model, tokenizer, prompt, source_layers=[24], insert_layer=2)
    interpret(model, tokenizer, text, layers=24, insert_layer=2, interpretation_prompt=prompt, mapping=maps)
    save_maps(maps, "translator.safetensors"); load_maps("translator.safetensors")

A state of a deep layer is no input that a shallow layer has ever seen, and on its way through the layers between it is
turned away from what it said. The map is trained so that the model, given the mapped state at the end of an
interpretation prompt, says the token that it itself puts next where the state came from: no labels, on text that the
model samples from a few openings. A tuned lens (Belrose et al. 2023) read by the model, not by its output matrix. It
learns what a state is about to say, for one layer and one prompt; that it is a learned reader must be said
with its results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .cache import empty_cache, repeat_rows
from .chat import encode_prompt
from .families import decoder_layers
from .logits import input_device, next_logits
from .mapping import AffineMap, MappingError
from .prompts import InterpretationPrompt
from .surgery import plan_surgery, surgery

OPENINGS = (
    *("The", "In", "A", "It", "One", "This", "There is", "When", "The first", "The most", "People", "My", "She"),
    *("He", "They", "Many", "The city", "The name of", "The word", "Q: What", "Who", "The country", "An", "At", "From"),
    *("The largest", "The history of", "The book", "In the year", "Scientists", "A famous", "The river", "The color"),
    *("The animal", "The language", "The author", "The music", "The king", "The game", "The food", "The company"),
    *("Once upon a time", "The element", "The meaning of", "The team", "The president", "The mountain", "The law"),
)
"""What sampled texts begin with."""
SKIPPED = 4
"""Positions at a text's beginning, where a state says little."""


@dataclass(frozen=True)
class TranslatorSettings:
    """How a translator is fitted."""

    texts_per_opening: int = 8
    text_tokens: int = 64
    temperature: float = 0.8
    """Of sampling the texts."""
    most_per_token: int = 25
    """States that are followed by one and the same token: commas would be most of them."""
    start: float = 3.0
    """The map begins as so many times the identity."""
    steps: int = 200
    batch_size: int = 128
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        if self.text_tokens <= SKIPPED or self.steps < 1 or min(self.texts_per_opening, self.batch_size) < 1:
            raise ValueError(f"{self}: texts of more than {SKIPPED} tokens, and at least one step, text and state")


def fit_translator(
    model: nn.Module,
    tokenizer: Any,
    prompt: InterpretationPrompt,
    *,
    source_layers: Sequence[int],
    insert_layer: int,
    settings: TranslatorSettings | None = None,
    on_step: Callable[[int, int, float], None] = lambda layer, step, loss: None,
) -> dict[int, AffineMap]:
    """One map per source layer, the same on every call.

    Args:
        model: in evaluation mode; its weights stay as they are.
        prompt: what the states are read with; it should end with its placeholder.
        source_layers: decoder layers whose inputs are read.
        on_step: called with the source layer, the step and its loss (cross entropy, in nats).
    """
    settings = settings or TranslatorSettings()
    states, tokens = sample_states(model, tokenizer, source_layers, settings)
    return {
        layer: _fit(
            model, prompt, states[layer], tokens, insert_layer, settings, lambda *at, layer=layer: on_step(layer, *at)
        )
        for layer in source_layers
    }


def save_maps(maps: Mapping[int, AffineMap], path: str | Path) -> None:
    """As safetensors."""
    from safetensors.torch import save_file

    tensors = {}
    for layer, affine in maps.items():
        tensors |= {f"{layer}.weight": affine.weight.contiguous(), f"{layer}.bias": affine.bias.contiguous()}
    save_file(tensors, str(path))


def load_maps(path: str | Path) -> dict[int, AffineMap]:
    """Raises MappingError for a file of something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
        layers = sorted({int(name.partition(".")[0]) for name in tensors})
        return {layer: AffineMap(tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]) for layer in layers}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise MappingError(f"{path} holds no maps by source layer: {error}") from error


@torch.no_grad()
def sample_states(
    model: nn.Module, tokenizer: Any, layers: Sequence[int], settings: TranslatorSettings
) -> tuple[dict[int, Tensor], Tensor]:
    """Layer → states `[n, hidden]` of texts that the model samples, and the token `[n]` it puts next."""
    generator = torch.Generator().manual_seed(0)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    best: list[Tensor] = []
    prompts = [encode_prompt(tokenizer, opening, raw=True) for opening in OPENINGS]
    with ExitStack() as hooks:
        for layer in layers:
            keep = _keep_last(seen[layer])
            handle = decoder_layers(model)[layer].register_forward_pre_hook(keep, with_kwargs=True)
            hooks.callback(handle.remove)
        for length in sorted({len(prompt) for prompt in prompts}):
            rows = [prompt for prompt in prompts if len(prompt) == length] * settings.texts_per_opening
            step, cache = torch.tensor(rows), empty_cache(model)
            for _ in range(length, settings.text_tokens):
                logits, cache = next_logits(model, step.to(input_device(model)), cache)
                logits = logits.float().cpu()
                best.append(logits.argmax(-1))
                step = torch.multinomial((logits / settings.temperature).softmax(-1), 1, generator=generator)
            skipped = SKIPPED - min(length, SKIPPED)
            steps = settings.text_tokens - length
            for kept in (best, *seen.values()):
                del kept[len(kept) - steps : len(kept) - steps + skipped]
    tokens = torch.cat(best)
    chosen = _balanced(tokens, settings.most_per_token, generator)
    return {layer: torch.cat(states)[chosen] for layer, states in seen.items()}, tokens[chosen]


def _keep_last(states: list[Tensor]) -> Callable[..., None]:
    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"])[:, -1].float().cpu())

    return before


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


def _fit(
    model: nn.Module,
    prompt: InterpretationPrompt,
    states: Tensor,
    tokens: Tensor,
    insert_layer: int,
    settings: TranslatorSettings,
    on_step: Callable[[int, float], None],
) -> AffineMap:
    """Adam on the cross entropy, from `start` times the identity; the rate falls to a twentieth."""
    generator = torch.Generator().manual_seed(0)
    mean = states.mean(0)
    scale = (states - mean).pow(2).mean().sqrt()
    turn = torch.zeros(states.shape[1], states.shape[1], requires_grad=True)
    shift = torch.zeros(states.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([turn, shift], lr=settings.learning_rate)
    with _frozen(model):
        shared = _read_beginning(model, prompt)
        for step in range(settings.steps):
            rate = min(1.0, (step + 1) / 15) * max(0.05, 1 - step / settings.steps)
            optimizer.param_groups[0]["lr"] = settings.learning_rate * rate
            rows = torch.randint(len(states), (settings.batch_size,), generator=generator)
            mapped = settings.start * states[rows] + (states[rows] - mean) / scale @ turn + shift
            logits = _logits_after(model, prompt, mapped, insert_layer, shared)
            loss = nn.functional.cross_entropy(logits, tokens[rows].to(logits.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            on_step(step, float(loss.detach()))
    weight = settings.start * torch.eye(len(mean)) + turn.detach() / scale
    return AffineMap(weight, shift.detach() - mean / scale @ turn.detach())


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Weights want no gradients meanwhile."""
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


@torch.no_grad()
def _read_beginning(model: nn.Module, prompt: InterpretationPrompt) -> Any:
    """The cache of what comes before the first placeholder; None where nothing does."""
    beginning = prompt.input_ids[: prompt.insert_locations[0]]
    if not beginning:
        return None
    return next_logits(model, torch.tensor([beginning], device=input_device(model)), empty_cache(model))[1]


def _logits_after(
    model: nn.Module, prompt: InterpretationPrompt, vectors: Tensor, insert_layer: int, shared: Any
) -> Tensor:
    """float32 logits `[n, vocabulary]` after the prompt with one of the vectors `[n, hidden]` in each row."""
    locations = list(prompt.insert_locations)
    how = {"overlay_strength": 1.0, "replacing_mode": "normalized"}
    plan = plan_surgery(
        [
            {insert_layer: (locations, vector.expand(1, len(locations), -1)), **how}
            for vector in vectors.to(model.dtype)
        ],
        n_layers=len(decoder_layers(model)),
        hidden_size=vectors.shape[-1],
        batch_size=len(vectors),
        prompt_length=len(prompt.input_ids),
        cached_length=locations[0],
    )
    rest = torch.tensor([prompt.input_ids[locations[0] :]] * len(vectors), device=input_device(model))
    cache = empty_cache(model) if shared is None else repeat_rows(shared, len(vectors))
    with surgery(model, plan):
        return next_logits(model, rest, cache)[0].float()
