"""Training until the interpretation of an embedding is what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..engine.sampling import Sampling
from ..engine.settings import DEFAULT_PROMPT, DEFAULTS, InterpretationSettings
from ..mapping.resuming import Store
from ..mapping.translator import frozen
from ..models.families import decoder_layers
from ..models.layer_inputs import check_evaluation_mode
from ..models.layer_spec import SAME
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..prompts.spec_files import find_spec
from .objective import Reader, moved, source_ids, states_of, target_loss
from .targets import Target
from .tuning import LORA, Tuned, tune

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class ControlSettings:
    """How a model is changed."""

    layers: tuple[int, ...] | None = None
    """The decoder layers whose weights change; None: all below the shallowest target."""
    training: str = LORA
    """"lora" or "full"."""
    rank: int = 8
    steps: int = 100
    learning_rate: float = 1e-3
    keep: float = 100.0
    """Weight of how far the states of references move, beside the loss of the targets (nats per token)."""
    references_at_once: int = 8
    samples: int = 8
    """Of each interpretation that is rewarded."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "references_at_once", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1")
        if not self.learning_rate > 0 or self.keep < 0:
            raise ValueError(f"{self}: a learning rate above 0, and a weight not below")


@dataclass(frozen=True)
class Step:
    """One step of training."""

    number: int
    target: float
    """The mean loss of the targets before the step."""
    moved: float
    """How far the references had moved; 0 without any."""


def control(
    model: nn.Module,
    tokenizer: Tokenizer,
    targets: Sequence[Target],
    *,
    references: Sequence[str] = (),
    settings: ControlSettings | None = None,
    prompt: InterpretationPrompt | None = None,
    how: InterpretationSettings = DEFAULTS,
    checkpoints: str | Path | None = None,
    every: int = 20,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Tuned:
    """A changed model, whose embeddings the untouched one interprets as was asked; the same on every call.

    Args:
        model: in evaluation mode; it stays as it is, and shares its memory with the changed one.
        targets: which embeddings, and what is to be said of them.
        references: raw prompts whose states at the targets' layers are held near what they were.
        prompt, how: what embeddings are interpreted with; None: the default prompt. Guidance has no part in it.
        checkpoints: a folder that training can go on from when it was stopped; a call with the same arguments does.
        every: steps from one checkpoint to the next.

    Raises ValueError for what does not fit the model, and for the checkpoint of another training.
    """
    settings = settings or ControlSettings()
    check_evaluation_mode(model)
    layers = _layers(model, targets, settings, how)
    reader = Reader(model, tokenizer, prompt or find_spec(DEFAULT_PROMPT).build(tokenizer), how)
    texts = [source_ids(tokenizer, target.prompt, target.raw) for target in targets]
    for target, ids in zip(targets, texts):
        if not -len(ids) <= target.token < len(ids):
            raise ValueError(f"target {target.prompt!r}: token {target.token} is out of range, of {len(ids)} tokens")
    tuned = tune(model, layers, settings.training, rank=settings.rank, seed=settings.seed)
    depths = sorted({target.layer for target in targets})
    sampling = Sampling(settings.samples, seed=settings.seed)

    def loss(number: int) -> Tensor:
        states = states_of(tuned.model, texts, depths)
        vectors = [of_text[depths.index(target.layer), target.token] for target, of_text in zip(targets, states)]
        each = [
            target_loss(reader, vector, target, sampling, f"{number}\0{which}")
            for which, (target, vector) in enumerate(zip(targets, vectors))
        ]
        return torch.stack(each).mean()

    path = None if checkpoints is None else Path(checkpoints) / CHECKPOINT
    with frozen(model):
        kept = Kept.of(model, tokenizer, references, depths)
        store = None if path is None else Store(path, every, _identity(targets, references, settings, reader))
        train(tuned, loss, kept, settings, store, on_step)
    return tuned


def train(
    tuned: Tuned,
    loss: Callable[[int], Tensor],
    kept: Kept,
    settings: ControlSettings,
    store: Store | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> None:
    """Adam on a loss, and on how far references move. loss: of the step with that number."""
    optimizer = torch.optim.AdamW(tuned.trained.values(), lr=settings.learning_rate, weight_decay=0.0)
    done = 0 if store is None else store.resume(tuned.trained, optimizer).steps
    for number in range(done, settings.steps):
        optimizer.zero_grad()
        target, apart = loss(number), kept.moved(tuned.model, number, settings.references_at_once)
        (target + settings.keep * apart.to(target.device)).backward()
        optimizer.step()
        on_step(Step(number, float(target.detach()), float(apart.detach())))
        if store is not None and (number + 1) % store.every == 0:
            store.save(tuned.trained, optimizer, number + 1)
    tuned.model.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Kept:
    """Prompts whose states are to stay as they are."""

    texts: Sequence[Sequence[int]]
    layers: Sequence[int]
    states: Sequence[Tensor]
    """Before, `[layers, tokens, hidden]` each."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], layers: Sequence[int]) -> Kept:
        texts = [source_ids(tokenizer, prompt) for prompt in prompts]
        return cls(texts, layers, [states_of(model, [ids], layers)[0] for ids in texts])

    def moved(self, model: nn.Module, number: int, at_once: int) -> Tensor:
        """How far those of this step have; all have their turn."""
        if not self.texts:
            return torch.zeros(())
        chosen = list(dict.fromkeys((number * at_once + one) % len(self.texts) for one in range(at_once)))
        now = states_of(model, [self.texts[one] for one in chosen], self.layers)
        return moved(now, [self.states[one] for one in chosen])


def _layers(
    model: nn.Module, targets: Sequence[Target], settings: ControlSettings, how: InterpretationSettings
) -> tuple[int, ...]:
    """The layers to change. Raises ValueError for targets, layers and settings that do not fit."""
    n_layers = len(decoder_layers(model))
    if not targets:
        raise ValueError("no target: give at least one")
    if how.insert_layer == SAME:
        raise ValueError(f"insert_layer is {SAME}: name the layer that embeddings are inserted at")
    for target in targets:
        if target.layer > n_layers:
            raise ValueError(f"target {target.prompt!r}: layer {target.layer} is out of range: 1 to {n_layers}")
    shallowest = min(target.layer for target in targets)
    layers = tuple(range(shallowest)) if settings.layers is None else settings.layers
    if layers and min(layers) >= shallowest:
        raise ValueError(
            f"layers {list(layers)} lie behind hidden state {shallowest}, which they cannot change: choose layers below"
        )
    return layers


def _identity(targets: Sequence[Target], references: Sequence[str], settings: ControlSettings, reader: Reader) -> str:
    """Differs for another training; the number of steps may grow. Functions of one's own are known by name alone."""
    wanted = [getattr(one.wanted, "__qualname__", repr(one.wanted)) for one in targets]
    known = [[one.prompt, one.layer, one.token, one.raw, what] for one, what in zip(targets, wanted)]
    how = asdict(settings) | {"steps": None}
    content = [known, list(references), how, list(reader.prompt.input_ids), repr(reader.settings)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
