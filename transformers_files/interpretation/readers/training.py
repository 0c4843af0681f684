"""A SelfIE adapter for one's own model, trained on vectors whose labels are known (arXiv:2602.10352).

    data = LabelledVectors(vectors, labels, held_out, layer=18)
    trained = train_adapter(model, tokenizer, data, settings=AdapterSettings("scalar_affine"))
    trained.save("reader.safetensors", model="mine")
    interpret(model, tokenizer, prompt, reader="reader.safetensors")

The language model stays as it is. The soft token that the adapter makes of a vector takes the place of every
placeholder at the input of decoder layer 0, and the label behind the prompt is made more probable, with what closes it:
the prompt's stop and the end of the turn. The recipe is the published one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..engine.likelihood import token_log_probabilities
from ..mapping.resuming import Store
from ..mapping.translator import frozen
from ..models.layer_inputs import check_evaluation_mode, hidden_size
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from .labelled_vectors import LabelledVectors
from .own_header import OwnHeader
from .projection import Projection, beginning
from .selfie_adapter import SelfieAdapter, prompt_for, write

KINDS = ("scale_only", "scalar_affine", "scalar_affine_plus_low_rank")
"""The types of projection that are trained."""
MOST_NATS = 100.0
"""Of one token: what is above does not count, as there."""


@dataclass(frozen=True)
class AdapterSettings:
    """How an adapter is trained; the defaults of the learning rate and what follows it are the published ones."""

    kind: str = "scalar_affine"
    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 0.01
    """It rises in the first steps, and falls to nothing by a cosine."""
    warm_up: int = 10
    weight_decay: float = 0.01
    clip: float = 0.5
    """The largest norm of a gradient."""
    init_scale: float = 5.0
    rank: int = 64
    low_rank_init_factor: float = 0.01
    subtract_mean: bool = True
    """Whether vectors go in less the mean of those that are trained on."""
    every: int = 25
    """Steps from one validation, and one checkpoint, to the next."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}: use one of {', '.join(KINDS)}")
        for name in ("steps", "batch_size", "rank", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1")
        for name in ("learning_rate", "clip", "init_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a number above 0")
        if min(self.warm_up, self.weight_decay, self.low_rank_init_factor) < 0:
            raise ValueError(f"{self}: warm_up, weight_decay and low_rank_init_factor are 0 at least")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        passed = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * (1 + math.cos(math.pi * passed)) / 2

    def rows(self, step: int, among: Sequence[int]) -> list[int]:
        """Those of a step: all have their turn, in another order each time, whatever came before the step."""
        first, n = step * self.batch_size, len(among)
        orders = [self._order(turn, n) for turn in range(first // n, (first + self.batch_size - 1) // n + 1)]
        start = first % n
        return [among[at] for at in torch.cat(orders)[start : start + self.batch_size].tolist()]

    def _order(self, turn: int, n: int) -> Tensor:
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed + turn))


@dataclass(frozen=True)
class Step:
    """One step of training."""

    number: int
    loss: float
    """Nats per token of its labels, before the step."""
    validation: float | None
    """Of the labels that are held out, after it; None where it was not asked for."""


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """The adapter that the held-out labels were most probable with."""

    projection: Projection
    spec: InterpretationPromptSpec
    settings: AdapterSettings
    hidden: int
    layer: int | None
    step: int
    """After how many steps; 0: before any."""
    loss: float
    """Nats per token of the held-out labels."""
    loss_before: float
    """Before the first step."""

    def save(self, path: str | Path, *, model: str) -> None:
        """A file as the published ones are, with its mean beside it; see `selfie_adapter.write`. Raises ReaderError."""
        own = OwnHeader(self.spec, self.layer, self.projection.mean is not None, model)
        adapter = SelfieAdapter(Path(path), self.projection, self.hidden, self.layer, own)
        names = {"init_scale": "init_scale", "rank": "low_rank_rank", "low_rank_init_factor": "low_rank_init_factor"}
        config = {theirs: getattr(self.settings, mine) for mine, theirs in names.items()}
        write(adapter, config, {"global_step": str(self.step), "best_val_loss": str(self.loss)})


@dataclass(frozen=True, eq=False)
class _Task:
    """The label behind the prompt with its vector in it."""

    model: nn.Module
    prompt: InterpretationPrompt
    vectors: Tensor
    texts: Sequence[Sequence[int]]
    """The token ids of each label and what closes it."""
    at_once: int

    def losses(self, projection: Projection, rows: Sequence[int]) -> Tensor:
        """`[rows]`: nats per token."""
        weight = self.model.get_input_embeddings().weight
        tokens = projection(self.vectors[list(rows)]).to(weight.dtype)
        places = list(self.prompt.insert_locations)
        how = {"overlay_strength": 1.0, "replacing_mode": "normalized"}
        infos = [{0: (places, token.expand(1, len(places), -1)), **how} for token in tokens]
        found = token_log_probabilities(self.model, self.prompt, infos, [self.texts[row] for row in rows])
        return torch.stack([(-one).clamp(max=MOST_NATS).mean() for one in found])

    @torch.no_grad()
    def validation(self, projection: Projection, rows: Sequence[int]) -> float:
        parts = [rows[first : first + self.at_once] for first in range(0, len(rows), self.at_once)]
        return float(torch.cat([self.losses(projection, part) for part in parts]).double().mean())


def train_adapter(
    model: nn.Module,
    tokenizer: Tokenizer,
    data: LabelledVectors,
    *,
    prompt: InterpretationPromptSpec | None = None,
    settings: AdapterSettings | None = None,
    checkpoint: str | Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> TrainedAdapter:
    """The same on every call.

    Args:
        model: in evaluation mode; it stays as it is.
        prompt: what the vectors are read with; None: as `selfie_adapter.prompt_for` has it.
        checkpoint: a file that training can go on from when it was stopped; a call with the same arguments does.

    Raises ValueError for vectors that do not fit the model, for a mean of no layer, for a prompt that was asked a
    question, for the checkpoint of another training, and where the loss is no number.
    """
    settings = settings or AdapterSettings()
    check_evaluation_mode(model)
    if (found := data.vectors.shape[1]) != (expected := hidden_size(model)):
        raise ValueError(f"found vectors of size {found}, expected the model's hidden size {expected}")
    if settings.subtract_mean and data.layer is None:
        raise ValueError("a mean belongs to a layer, and the vectors are of none: name it, or do not subtract the mean")
    spec = prompt or prompt_for(tokenizer)
    if spec.question is not None:
        raise ValueError(f"interpretation prompt {spec.name!r} has a question, which an adapter's file cannot keep")
    built = spec.build(tokenizer)
    end = getattr(tokenizer, "eos_token_id", None)
    closing = [] if end is None else [end]
    texts = [[*tokenizer.encode(label + spec.stop, add_special_tokens=False), *closing] for label in data.labels]
    mean = data.mean if settings.subtract_mean else None
    projection = _beginning(settings, expected, mean)
    store = None if checkpoint is None else Store(Path(checkpoint), settings.every, _identity(data, settings, built))
    with frozen(model), torch.enable_grad():
        task = _Task(model, built, data.vectors, texts, settings.batch_size)
        best = _train(task, projection, data, settings, store, on_step)
    tensors = {name: best[name] for name in projection.tensors}
    chosen = Projection(settings.kind, True, tensors, mean)
    step, loss, before = int(best["step"]), float(best["loss"]), float(best["before"])
    return TrainedAdapter(chosen, spec, settings, expected, data.layer, step, loss, before)


def _beginning(settings: AdapterSettings, hidden: int, mean: Tensor | None) -> Projection:
    tensors = beginning(
        settings.kind,
        hidden,
        scale=settings.init_scale,
        rank=settings.rank,
        factor=settings.low_rank_init_factor,
        seed=settings.seed,
    )
    return Projection(settings.kind, True, {name: nn.Parameter(one) for name, one in tensors.items()}, mean)


def _train(
    task: _Task,
    projection: Projection,
    data: LabelledVectors,
    settings: AdapterSettings,
    store: Store | None,
    on_step: Callable[[Step], None],
) -> dict[str, Tensor]:
    """The best tensors by name, with their "step", their "loss" on what is held out, and that loss "before"."""
    trained = {name: one for name, one in projection.tensors.items() if isinstance(one, nn.Parameter)}
    optimizer = torch.optim.AdamW(
        trained.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )
    training, held_out = data.rows(held_out=False), data.rows(held_out=True)
    done = None if store is None else store.resume(trained, optimizer)

    def state(step: int, loss: float) -> dict[str, Tensor]:
        copies = {name: one.detach().clone() for name, one in trained.items()}
        return copies | {"step": torch.tensor(step), "loss": torch.tensor(loss, dtype=torch.float64)}

    if done is not None and done.steps:
        first, best = done.steps, dict(done.kept)
    else:
        first, best = 0, state(0, task.validation(projection, held_out))
        best["before"] = best["loss"].clone()
    for number in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(number)
        optimizer.zero_grad()
        loss = task.losses(projection, settings.rows(number, training)).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"step {number}: the loss is {value}; choose a lower learning rate or scale")
        loss.backward()
        nn.utils.clip_grad_norm_(trained.values(), settings.clip)
        optimizer.step()
        steps, validation = number + 1, None
        if steps % settings.every == 0 or steps == settings.steps:
            validation = task.validation(projection, held_out)
            if validation < float(best["loss"]):
                best = best | state(steps, validation)
        on_step(Step(number, value, validation))
        if store is not None and steps % store.every == 0:
            store.save(trained, optimizer, steps, best)
    return best


def _identity(data: LabelledVectors, settings: AdapterSettings, prompt: InterpretationPrompt) -> str:
    """Differs for another training."""
    content = [list(data.labels), list(data.held_out), data.layer, asdict(settings), list(prompt.input_ids)]
    numbers = data.vectors.contiguous().numpy().tobytes()
    return hashlib.sha256(json.dumps(content).encode() + numbers).hexdigest()[:16]
