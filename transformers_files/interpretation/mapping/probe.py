"""By which maps know the model that they were fitted on: some logits that it makes of one and the same vector.

save_maps(maps, path, {PROBE: json.dumps(probe_of(model))})
check_probe(read_probe(path), model, f"mapping {path}")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..models.forward import read_out
from .affine import MappingError

PROBE = "probe"
"""Its name in the header of a file."""
_LOGITS = 64
SAME_MODEL = 0.999
"""Cosine of these logits from which a model is the same: rounding to 16 bits changes less."""


@torch.no_grad()
def probe_of(model: nn.Module) -> tuple[float, ...]:
    """They depend on the final norm and the head."""
    hidden = model.get_input_embeddings().embedding_dim
    vector = torch.randn(1, hidden, generator=torch.Generator().manual_seed(0))
    logits = read_out(model, vector)[0].cpu()
    return tuple(logits[:: max(1, len(logits) // _LOGITS)][:_LOGITS].tolist())


def check_probe(probe: Sequence[float], model: nn.Module, what: str) -> None:
    """Raise MappingError, which names `what` was fitted, if that was another model."""
    mine = torch.tensor(probe_of(model))
    alike = len(mine) == len(probe)
    likeness = float(torch.cosine_similarity(mine, torch.tensor(probe), 0)) if alike else 0.0
    if likeness < SAME_MODEL:
        raise MappingError(
            f"{what} is another model's: logits of a fixed vector agree by {likeness:.3f} only; fit one for this model"
        )


def read_probe(path: str | Path) -> tuple[float, ...] | None:
    """That of a file of maps; None where it has none. Raises MappingError for one that is no list of numbers."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        header = file.metadata() or {}
    try:
        return tuple(map(float, json.loads(header[PROBE]))) if PROBE in header else None
    except (ValueError, TypeError) as error:
        raise MappingError(f"{path}: its probe is no list of numbers: {error}") from None
