"""The model that a program measures or fits to: its options and its loading."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.options import EXAMPLES, MODEL, add_options
from common.program import embedded_model

if TYPE_CHECKING:
    from transformers.interpretation.models.layer_spec import InsertLayer

DEEPEST_INSERT = 1 / 6
"""Of the layers: a deeper insert layer would let the model finish its own pass."""

BATCH_SIZE = 128


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """Which model is measured, what it is asked, and how much of it at once."""
    add_options(parser, *MODEL, "batch_size", batch_size={"default": BATCH_SIZE})
    help = "the questions (default: the project's)"
    parser.add_argument("--facts", type=Path, default=EXAMPLES / "facts.json", metavar="FILE.json", help=help)


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run."""

    model: Any
    tokenizer: Any
    name: str
    n_layers: int

    @property
    def deepest_insert_layer(self) -> int:
        return int(self.n_layers * DEEPEST_INSERT)


def load(arguments: argparse.Namespace) -> Loaded:
    """The model of these arguments. Raises ModelError, RequestError, ValueError."""
    from transformers.interpretation.models.device_map import Placement
    from transformers.interpretation.models.families import decoder_layers
    from transformers.interpretation.models.loading import load_weights, read_outline, resolve_device, resolve_dtype

    name = arguments.model or embedded_model()
    outline = read_outline(name, trust_remote_code=arguments.trust_remote_code)
    device = resolve_device(arguments.device)
    dtype = resolve_dtype(arguments.dtype, device)
    placement = Placement.read(arguments.device_map).fitted(outline.skeleton) if arguments.device_map else None
    model = load_weights(outline, dtype=dtype, device=device, placement=placement)
    print(f"{name}: {str(dtype).removeprefix('torch.')}", file=sys.stderr)
    return Loaded(model, outline.tokenizer, Path(name).name, len(decoder_layers(model)))


def check_insert_layer(insert_layer: InsertLayer, loaded: Loaded, layers: Sequence[int]) -> None:
    """Raise ValueError for one that is too deep for an interpretation, or "same" where a source layer is no layer's
    input."""
    if insert_layer == "same":
        if max(layers) >= loaded.n_layers:
            raise ValueError(
                f"insert layer same: hidden state {max(layers)} comes after the last decoder layer, so it is no "
                f"layer's input; give --layers :{loaded.n_layers}"
            )
        return
    several = insert_layer if isinstance(insert_layer, tuple) else (insert_layer,)
    if max(several) > loaded.deepest_insert_layer:
        raise ValueError(
            f"insert layer {insert_layer} is too deep: at most {loaded.deepest_insert_layer}, a sixth of "
            f"{loaded.n_layers} layers; deeper, the model rather finishes its own pass than interprets"
        )
