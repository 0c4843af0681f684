"""What the programs about features share: which vectors, where they are read, and how a state activates them."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.measured_model import Loaded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.interpretation.features.label_scores import LabelScore


@dataclass(frozen=True)
class Features:
    """Vectors with their names, and activations of all of them."""

    first: int
    """Index in their file of the first that is used."""
    names: list[str]
    activations: Callable[[Tensor], Tensor]
    """`[n, hidden]` → `[n, len(names)]`"""
    layer: int
    place: str


def add_feature_options(parser: argparse.ArgumentParser) -> None:
    """Which vectors, and the texts that they are looked for in."""
    add = parser.add_argument
    add(
        "--vectors",
        type=Path,
        required=True,
        metavar="FILE|FOLDER",
        help="as of the main program; a SAE's encoder is used",
    )
    add("--tensor", metavar="NAME", help="of the vectors' safetensors file")
    add("--vector-column", metavar="NAME", help="of the vectors' Parquet file")
    add("--rows", metavar="A:B", help="which of them (default: all)")
    add("--layer", type=int, metavar="N", help="whose hidden states they are of (default: as a SAE says)")
    add("--corpus", type=Path, required=True, metavar="FILE", help=".jsonl or .parquet by column, else a text per line")
    add("--text-column", default="text", metavar="NAME", help="of the corpus (default: text)")
    add("-k", "--contexts-each", dest="k", type=int, default=8, metavar="N", help="contexts of each (default: 8)")


def find_features(arguments: argparse.Namespace) -> Callable[[Loaded], Features]:
    """Opens the vectors; what is given back checks them against the model. Raises ValueError."""
    from transformers.interpretation.features.sparse_autoencoder import load
    from transformers.interpretation.models.places import RESIDUAL
    from transformers.interpretation.vectors.formats import open_vectors

    if arguments.k < 1:
        raise ValueError(f"-k is {arguments.k}: at least one context of each")
    file = open_vectors(arguments.vectors, tensor=arguments.tensor, column=arguments.vector_column)
    start, stop = _bounds(arguments.rows, file.n)
    sae = load(arguments.vectors) if arguments.vectors.is_dir() else None
    layer = arguments.layer if arguments.layer is not None or file.origin is None else file.origin.layer
    if layer is None:
        raise ValueError("no file says which layer's hidden states the vectors are of; give --layer")
    place = RESIDUAL if file.origin is None else file.origin.place

    def fitted(loaded: Loaded) -> Features:
        hidden: Any = loaded.model.get_input_embeddings().weight.shape[-1]
        if file.hidden != hidden:
            raise ValueError(f"{arguments.vectors}: vectors of {file.hidden} numbers, expected the model's {hidden}")
        if not 0 <= layer <= loaded.n_layers:
            raise ValueError(f"layer {layer} is out of range: there are 0 to {loaded.n_layers}")
        if sae is not None:
            encode = lambda states: sae.activations(states)[:, start:stop]  # noqa: E731
        else:
            rows = file.rows(start, stop)
            encode = lambda states: states @ rows.T  # noqa: E731
        return Features(start, file.names(start, stop), encode, layer, place)

    return fitted


def _bounds(text: str | None, n: int) -> tuple[int, int]:
    if text is None:
        return 0, n
    first, separator, last = text.partition(":")
    try:
        start, stop = int(first or 0), int(last or n) if separator else int(first) + 1
    except ValueError:
        raise ValueError(f"--rows {text}: write A:B") from None
    if not 0 <= start < stop <= n:
        raise ValueError(f"--rows {text}: there are {n} vectors")
    return start, stop


def draw(path: Path, scores: Sequence[LabelScore]) -> list[Path]:
    """Of each kind of score the features in order, beside the controls; nothing where there is no matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("detection", "generation")):
        for name, label in (
            (kind, "its label"),
            (f"{kind}_shuffled", "another feature's"),
            (f"{kind}_random", "random"),
        ):
            values = sorted((value for one in scores if (value := getattr(one, name)) is not None), reverse=True)
            axes.plot([100 * (rank + 0.5) / len(values) for rank in range(len(values))], values, label=label)
        axes.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        axes.set(title=kind, xlabel="% of features, best first", xlim=(0, 100), ylim=(0, 1))
    figure.axes[0].set_ylabel("share of pairs that are right")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    return [path]
