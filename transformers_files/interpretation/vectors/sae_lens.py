"""A sparse autoencoder in a folder, as the package SAELens writes it: `cfg.json` and `sae_weights.safetensors`.

Its vectors are the rows of `W_dec`, what each feature writes. The package itself is not needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..models.layer_names import named_layer
from ..models.places import RESIDUAL
from .safetensors_rows import NamedTensors, TensorRows, open_safetensors
from .vector_file import Origin, VectorsError

CONFIG, WEIGHTS, DECODER = "cfg.json", "sae_weights.safetensors", "W_dec"
_WITHIN = re.compile(r"blocks\.(\d{1,6})\.hook_(mlp|attn)_out", re.ASCII)
_PLACES = {"mlp": "mlp_output", "attn": "attention_output"}


def open_sae(folder: Path) -> tuple[TensorRows | NamedTensors, Origin | None]:
    """Its decoder's rows, and where it reads and writes, if it says so. Raises VectorsError."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise VectorsError(f"{folder} has no {name}; a folder of vectors is a SAE as SAELens saves it")
    return open_safetensors(folder / WEIGHTS, DECODER), _origin(folder / CONFIG)


def downloaded(name: Path) -> Path:
    """The folder of a SAE at the Hugging Face hub, `owner/repository/folder`; downloaded unless it has been before.

    Raises VectorsError for a name of another form, and where it cannot be had.
    """
    if name.is_absolute() or len(name.parts) < 2 or ".." in name.parts:
        raise VectorsError(f"there is no {name}")
    from huggingface_hub import hf_hub_download

    owner, repository, *inside = name.parts
    try:
        files = [hf_hub_download(f"{owner}/{repository}", "/".join([*inside, file])) for file in (CONFIG, WEIGHTS)]
    except Exception as error:  # the library raises errors of its own, which differ by version
        reason = " ".join(str(error).split())[:200]
        raise VectorsError(f"there is no {name} here, and as a SAE it cannot be had from the hub: {reason}") from None
    return Path(files[-1]).parent


def _origin(path: Path) -> Origin | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given: Mapping[str, Any] = {**content, **(content.get("metadata") or {})}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise VectorsError(f"{path} is no configuration of a SAE: {error}") from None
    hook = given.get("hook_name_out") or given.get("hook_name")
    model = given.get("model_name")
    if hook is None:
        return None
    if (found := _place(str(hook))) is not None:
        return Origin(str(hook), *found, None if model is None else str(model))
    raise VectorsError(
        f"{path}: the SAE is of {hook}, whose vectors are in no space that is read here; there are resid_pre, "
        "resid_post, mlp_out and attn_out"
    )


def _place(hook: str) -> tuple[str, int] | None:
    """The place and layer of a hook point whose vectors have one here. A module's own name is what it puts out."""
    if (within := _WITHIN.fullmatch(hook)) is not None:
        return _PLACES[within[2]], int(within[1])
    with suppress(ValueError):  # other places within a layer
        if (layer := named_layer(hook) or named_layer(f"{hook}.output")) is not None:
            return RESIDUAL, layer.index
    return None
