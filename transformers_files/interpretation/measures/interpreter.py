"""Vectors → their interpretations, made in the way that is being measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..engine.cell import Cell, Interpretation
from ..engine.decode import interpret_chunk
from ..engine.settings import InterpretationSettings
from ..mapping.affine import AnyMap, map_vectors
from ..models.activations import capture
from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import input_device
from ..models.layer_spec import SAME
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.record import interpretation_pieces


@dataclass(frozen=True)
class Said:
    """An interpretation and its text."""

    interpretation: Interpretation
    pieces: tuple[str, ...]
    """What each token adds to the text."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Interpreter:
    """One interpretation prompt and one insert layer for vectors of all layers."""

    model: nn.Module
    tokenizer: Tokenizer
    prompt: InterpretationPrompt
    settings: InterpretationSettings
    batch_size: int
    mapping: AnyMap = None
    """From source layers to the insert layer; see `mapping`."""

    def __call__(self, vectors: torch.Tensor, layer: int) -> list[Said]:
        """Vectors `[n, hidden]` of one source layer → the interpretation of each."""
        vectors = map_vectors(self.mapping, vectors, layer, vectors.shape[-1])
        depth = None if self.mapping is not None else layer / len(decoder_layers(self.model))
        own = layer if self.settings.insert_layer == SAME else None
        cells = [Cell(vector, self.prompt, own, depth=depth) for vector in vectors]
        said = interpret_chunk(self.model, cells, self.settings, batch_size=self.batch_size)
        return [Said(one, interpretation_pieces(self.tokenizer, self.prompt, one.token_ids)) for one in said]


def last_token_states(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    layers: Sequence[int],
    *,
    raw: bool = True,
    on_prompt: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """The hidden states of each prompt's last token: `[len(prompts), len(layers), hidden]`, in the model's dtype.

    raw: prompts as they are; otherwise each is a user's turn, whose last token is where the reply begins. on_prompt:
    called after each.

    Raises ValueError for a layer that does not exist.
    """
    states = []
    for prompt in prompts:
        ids = torch.tensor([encode_prompt(tokenizer, prompt, raw=raw)], device=input_device(model))
        states.append(capture(model, ids, layers, [-1])[:, 0])
        on_prompt()
    return torch.stack(states)
