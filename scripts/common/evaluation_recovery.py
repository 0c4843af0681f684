"""Answer recovery, of `evaluate_interpretations.py`: shares of known facts, with lenses beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.interpretation.mapping.lenses import Lens
    from transformers.interpretation.measures import Fact, Interpreter, ScoredCell

DEPTHS = (0.5, 0.65, 0.8)
"""Recovery at any layer is reported up to these depths: deeper, the answer can be decoded from the output layer."""


def recovery_section(
    interpreter: Interpreter,
    cells: Sequence[ScoredCell],
    known: Sequence[Fact],
    layers: Sequence[int],
    n_layers: int,
    lenses: Sequence[Lens],
) -> dict[str, Any]:
    """Shares of known facts, per layer and at any layer up to a depth; each with its interval."""
    from transformers.interpretation.measures import answer_ranks, own_layer_shares, share_named

    read = {"logit": None} | {lens.kind: lens.maps for lens in lenses}
    model, tokenizer = interpreter.model, interpreter.tokenizer
    ranks = {kind: answer_ranks(model, tokenizer, known, layers, maps) for kind, maps in read.items()}
    own = own_layer_shares(interpreter, known, layers)

    def shares(at: Sequence[int]) -> dict[str, Any]:
        return {**as_json(share_named(cells, at)), **lens_columns(ranks, at)}

    return {
        "interpretations per reported one": 1,
        "any layer": {label: shares(at) for label, at in depths(layers, n_layers).items()},
        "layers": {
            layer: {**shares([layer]), **({"own layer": as_json(own[layer])} if layer in own else {})}
            for layer in layers
        },
    }


def depths(layers: Sequence[int], n_layers: int) -> dict[str, list[int]]:
    """Label of a depth → the layers up to it; where there are none it is left out."""
    up_to = {f"≤ {depth:.0%}": [layer for layer in layers if layer <= depth * n_layers] for depth in DEPTHS}
    return {label: at for label, at in up_to.items() if at}


def lens_columns(ranks: Mapping[str, Mapping[int, Tensor]], layers: Sequence[int]) -> dict[str, Any]:
    """Of each kind of lens the share of facts that it reads at any of these layers; nothing is subtracted."""
    from transformers.interpretation.measures import shares_among_best

    columns: dict[str, Any] = {}
    for kind, by_layer in ranks.items():
        if at := [by_layer[layer] for layer in layers if layer in by_layer]:
            columns |= {f"{kind} lens top-{best}": as_json(one) for best, one in shares_among_best(*at).items()}
    return columns


def read_lenses(paths: Sequence[Path]) -> list[Lens]:
    """Raises MappingError for another file, ValueError for two of a kind."""
    from transformers.interpretation.mapping.lenses import Lens

    lenses = [Lens.load(path) for path in paths]
    kinds = [lens.kind for lens in lenses]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"--lens: {' and '.join(kinds)}: give one of a kind")
    return lenses


def as_json(measured: Any) -> dict[str, Any]:
    """An estimate, or a dataclass of estimates, with words for names."""
    return {name.replace("_", " "): value for name, value in asdict(measured).items()}
