"""A learned translator: a small network from a source layer to the insert layer, fitted through the model itself.

    translators = fit_translator(model, tokenizer, prompt, source_layers=[24], insert_layer=2)
    interpret(model, tokenizer, text, layers=24, insert_layer=2, interpretation_prompt=prompt, mapping=translators)
    save_maps(translators, "translator.safetensors"); load_maps("translator.safetensors")

A state of a deep layer is no input that a shallow layer has ever seen, and on its way through the layers between it is
turned away from what it said. A translator is trained so that the model, given the translated state at the end of an
interpretation prompt, says what it itself puts next where the state came from: no labels, on text that the model
samples from a few openings. A tuned lens (Belrose et al. 2023) read by the model, not by its output matrix. It
learns what a state is about to say, for one layer and one prompt; that it is a learned reader must be said
with its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.beginning import read_beginning
from ..models.families import decoder_layers
from ..models.forward import input_device, next_logits
from ..models.kv_cache import empty_cache, repeat_rows
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..surgery.hooks import plan_surgery, surgery
from .affine import AffineMap, MappingError
from .training_text import OwnTextSettings, sample_own_text

START = 3.0
"""A translator begins as so many times the identity: what is long is changed little by the layers on its way."""
WIDTH = 2
"""Units of its nonlinear part, for each dimension of a state."""
WARM_UP = 15
"""Steps in which the learning rate rises."""
LAST_RATE = 0.03
"""To this share the learning rate falls."""


@dataclass(frozen=True)
class TranslatorSettings:
    """How a translator is fitted."""

    text: OwnTextSettings = field(default_factory=OwnTextSettings)
    steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 0.003

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(f"{self}: at least one step and state")


class Translator(nn.Module):
    """x → z · turn + shift + gelu(norm(z) · up + lift) · down, z = (x − mean) / scale.

    norm is a layer norm without weights. All tensors are float32 on the CPU.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden))
        self.register_buffer("scale", torch.ones(()))
        self.turn = nn.Parameter(torch.zeros(hidden, hidden))
        self.shift = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(hidden, WIDTH * hidden))
        self.lift = nn.Parameter(torch.zeros(WIDTH * hidden))
        self.down = nn.Parameter(torch.zeros(WIDTH * hidden, hidden))

    @classmethod
    def beginning(cls, states: Tensor) -> Translator:
        """START times the identity, for states `[n, hidden]` of a layer; its nonlinear part says nothing yet."""
        hidden = states.shape[1]
        made = cls(hidden)
        made.mean.copy_(states.mean(0))
        made.scale.copy_((states - made.mean).pow(2).mean().sqrt())
        with torch.no_grad():
            made.turn.copy_(START * made.scale * torch.eye(hidden))
            made.shift.copy_(START * made.mean)
            made.up.normal_(std=hidden**-0.5, generator=torch.Generator().manual_seed(0))
        return made

    def forward(self, states: Tensor) -> Tensor:
        """`[n, hidden]` → `[n, hidden]`, in float32 on the CPU."""
        if states.shape[-1] != len(self.mean):
            raise MappingError(f"vectors of size {states.shape[-1]} for a translator of {len(self.mean)}")
        scaled = (states.to(self.mean) - self.mean) / self.scale
        units = nn.functional.gelu(nn.functional.layer_norm(scaled, self.mean.shape) @ self.up + self.lift)
        return scaled @ self.turn + self.shift + units @ self.down


def fit_translator(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: InterpretationPrompt,
    *,
    source_layers: Sequence[int],
    insert_layer: int,
    settings: TranslatorSettings | None = None,
    on_step: Callable[[int, int, float], None] = lambda layer, step, loss: None,
) -> dict[int, Translator]:
    """One translator per source layer, the same on every call.

    Args:
        model: in evaluation mode; its weights stay as they are.
        prompt: what the states are read with; it should end with its placeholder.
        source_layers: decoder layers whose inputs are read.
        on_step: called with the source layer, the step and its loss (cross entropy, in nats).
    """
    settings = settings or TranslatorSettings()
    spoken = sample_own_text(model, tokenizer, source_layers, settings.text)
    with frozen(model):
        shared = _read_beginning(model, prompt)

        def surprise(translated: Tensor, rows: Tensor) -> Tensor:
            """Half of it about the best token, half about the model's distribution."""
            likely = _logits_after(model, prompt, translated, insert_layer, shared).log_softmax(-1).cpu()
            likely = likely.gather(1, spoken.tokens[rows])
            return -(likely[:, 0] + (spoken.shares[rows] * likely).sum(1)).mean() / 2

        return {
            layer: _fit(spoken.states[layer], surprise, settings, lambda *at, layer=layer: on_step(layer, *at))
            for layer in source_layers
        }


def save_maps(
    maps: Mapping[int, Translator | AffineMap], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """As safetensors; metadata: texts for the file's header."""
    from safetensors.torch import save_file

    parts = {layer: vars(one) if isinstance(one, AffineMap) else one.state_dict() for layer, one in maps.items()}
    named = {  # copies: several layers may share a map, and tensors that share memory cannot be saved
        f"{layer}.{name}": part.clone().contiguous() for layer, of_one in parts.items() for name, part in of_one.items()
    }
    save_file(named, str(path), metadata=None if metadata is None else dict(metadata))


def load_maps(path: str | Path) -> dict[int, Translator | AffineMap]:
    """By ascending source layer. Raises MappingError for a file of something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_file(str(path)).items():
            layer, _, part = name.partition(".")
            parts.setdefault(int(layer), {})[part] = tensor
        return {layer: _map_of(parts[layer]) for layer in sorted(parts)}
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise MappingError(f"{path} holds no maps by source layer: {error}") from error


def _map_of(parts: dict[str, Tensor]) -> Translator | AffineMap:
    if "mean" not in parts:
        return AffineMap(**parts)
    translator = Translator(len(parts["mean"]))
    translator.load_state_dict(parts)
    return translator.requires_grad_(False)


def _fit(
    states: Tensor,
    surprise: Callable[[Tensor, Tensor], Tensor],
    settings: TranslatorSettings,
    on_step: Callable[[int, float], None],
) -> Translator:
    """Adam on the surprise of batches of states `[n, hidden]`, translated."""
    generator = torch.Generator().manual_seed(0)
    translator = Translator.beginning(states.float())
    optimizer = torch.optim.Adam(translator.parameters())
    for step in range(settings.steps):
        rate = min(1.0, (step + 1) / WARM_UP) * max(LAST_RATE, 1 - step / settings.steps)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * rate
        rows = torch.randint(len(states), (settings.batch_size,), generator=generator)
        loss = surprise(translator(states[rows]), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step, float(loss.detach()))
    return translator.requires_grad_(False)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
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
    return read_beginning(model, prompt.input_ids, prompt.insert_locations[0])


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
    assert plan is not None  # every row inserts
    with surgery(model, plan):
        return next_logits(model, rest, cache)[0].float()
