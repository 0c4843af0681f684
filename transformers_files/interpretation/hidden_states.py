"""Hidden embeddings of prompts, with layers and tokens chosen as in `interpret`.

states = capture(model, input_ids, layers="10:20", tokens="last")              # [10, 1, hidden]
batch = tokenizer(texts, padding=True, return_tensors="pt")
states = capture(model, **batch, layers=[5], tokens=-1)                        # [len(texts), 1, 1, hidden]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .models import activations
from .models.default_device import cpu_by_default
from .models.families import decoder_layers
from .models.places import RESIDUAL
from .prompts.index_selection import Segment, Selection

Choice = str | int | slice | Sequence[int | range | str] | None


@cpu_by_default
def capture(
    model: nn.Module,
    input_ids: Tensor,
    layers: Choice = None,
    tokens: Choice = None,
    place: str = RESIDUAL,
    *,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """What a plain forward calls `hidden_states[layer][row, token]`, for each layer and token; or another hook point.

    Args:
        model: a causal language model.
        input_ids: `[sequence]`, `[1, sequence]`, or a batch `[n, sequence]`.
        layers: as for `interpret`: 5, [0, 10, -1], slice(0, 30, 5), "0:30:5", "resid_post.10"; None: all. Lists keep
            their order.
        tokens: the same for positions, "last", ranges and "mean(2:5)" for means. Each row of a batch is counted by
            itself and without its padding, so that −1 is its last token.
        place: the hook point; see `places.HOOK_POINTS`.
        attention_mask: `[n, sequence]`, 0 at padding, on whichever side.

    Returns:
        `[layers, tokens, hidden]`, of a batch of several rows or with a mask `[n, layers, tokens, hidden]`; on the CPU,
        in the model's dtype. Each row is what a pass over it alone gives.

    Raises:
        ValueError: a shape, layer, token or hook point that is not there; rows of a batch that select unequally many
            tokens; a segment, which is no single embedding.
        UnsupportedModelError: what the model's layers are given is not one embedding per token.
    """
    if input_ids.ndim not in (1, 2) or input_ids.numel() == 0:
        raise ValueError(f"capture takes input_ids of shape [sequence] or [n, sequence], not {list(input_ids.shape)}")
    rows = input_ids.reshape(-1, input_ids.shape[-1])
    if attention_mask is not None and attention_mask.shape != rows.shape:
        raise ValueError(
            f"attention_mask has shape {list(attention_mask.shape)}, input_ids {list(rows.shape)}; they must be equal"
        )
    texts = [row if attention_mask is None else row[attention_mask[number].bool()] for number, row in enumerate(rows)]
    wanted = _layers(layers, len(decoder_layers(model)), place)
    positions = [_tokens(tokens, len(text), number) for number, text in enumerate(texts)]
    counts = {len(chosen) for chosen in positions}
    if len(counts) > 1:
        raise ValueError(
            f"tokens select {min(counts)} to {max(counts)} of the rows of a batch, whose lengths differ; give indices "
            'that all have, negative ones or "last", or capture one row at a time'
        )
    states = [activations.capture(model, text[None], wanted, chosen, place) for text, chosen in zip(texts, positions)]
    several = len(states) > 1 or attention_mask is not None
    return torch.stack(states) if several else states[0]


def _layers(given: Choice, n_layers: int, place: str) -> list[int]:
    residual = place == RESIDUAL
    if (listed := _listed(given)) is not None:
        return listed
    selection = Selection.of(given)
    if selection.has_names and not residual:
        raise ValueError(f"names of layers are of the residual stream, and place is {place}; give indices")
    try:
        return list(selection.resolve(n_layers + residual, ends_after_norm=residual))
    except ValueError as error:
        raise ValueError(f"layers: {error}") from None


def _tokens(given: Choice, length: int, row: int) -> list[int | range]:
    if (listed := _listed(given)) is not None:
        return listed
    try:
        positions = Selection.of(given).positions(length)
    except ValueError as error:
        raise ValueError(f"tokens, row {row}: {error}") from None
    if segment := next((position for position in positions if isinstance(position, Segment)), None):
        raise ValueError(f"tokens: {segment} is several embeddings; capture its tokens, or their mean")
    return [position for position in positions if not isinstance(position, Segment)]


def _listed(given: Any) -> list | None:
    """A list of indices and ranges, whose order counts; None for any other choice."""
    if isinstance(given, Tensor):
        given = given.tolist()
    if given is None or isinstance(given, (str, slice)) or hasattr(given, "__index__"):
        return None
    return None if any(isinstance(one, str) for one in given) else list(given)
