"""Which model is run, and on what: the options and the loading that several programs share."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from program import embedded_model

if TYPE_CHECKING:
    from transformers.interpretation.models.layer_spec import InsertLayer

EXAMPLES = Path(__file__).resolve().parent / "examples"

DEEPEST_INSERT = 1 / 6
"""Of the layers: a deeper insert layer would let the model finish its own pass."""

BATCH_SIZE = 128


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What says which model is run, and on what."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="hub id or folder (default: the small embedded model)")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="default: auto")
    add("--device", default="auto", help="auto (default), cpu, cuda, …")
    add("--device-map", metavar="MAP", help="spread the model by accelerate; takes the place of --device")
    add("--trust-remote-code", action="store_true", help="let the model's own code run on this machine")


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """What it is asked, and how much of it at once."""
    add = parser.add_argument
    add("--facts", type=Path, default=EXAMPLES / "facts.json", metavar="FILE.json", help="default: the project's")
    add("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="interpretations at once (default: 128)")


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
    """The model of these arguments. Raises ModelError, Refused, ValueError."""
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


def check_insert_layer(insert_layer: InsertLayer, loaded: Loaded) -> None:
    """Raise ValueError for one that is too deep for an interpretation."""
    layers = insert_layer if isinstance(insert_layer, tuple) else (insert_layer,)
    if layers == ("same",) or max(layers) > loaded.deepest_insert_layer:
        raise ValueError(
            f"insert layer {insert_layer} is too deep: at most {loaded.deepest_insert_layer}, a sixth of "
            f"{loaded.n_layers} layers; deeper, the model rather finishes its own pass than interprets"
        )
