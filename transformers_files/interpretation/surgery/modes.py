"""What becomes of a hidden state into which an embedding is inserted: the replacing modes and their strength.

    new = s · scale · embedding + keep · old

| mode                    | scale               | keep  | s         |
|-------------------------|---------------------|-------|-----------|
| `normalized`            | 1                   | 1 − s | in [0, 1] |
| `addition`              | 1                   | 1     | > 0       |
| `norm_matched`          | ‖old‖ / ‖embedding‖ | 1 − s | in [0, 1] |
| `norm_matched_addition` | ‖old‖ / ‖embedding‖ | 1     | > 0       |

The norms are Euclidean, over the hidden size. A norm-matched embedding counts by its direction alone: whatever layer,
model or probe it comes from, it goes in as large as what was there.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReplacingMode:
    """One row of the table above."""

    name: str
    blends: bool
    """Whether the state that was there gives way: keep is 1 − s, else 1."""
    matches_norm: bool
    """Whether scale is ‖old‖ / ‖embedding‖, else 1."""

    def keep(self, strength: float) -> float:
        return 1 - strength if self.blends else 1.0

    def strength_problem(self, strength: float) -> str | None:
        """Why s cannot be `strength`; None where it can."""
        if strength < 0:
            most = "in [0, 1]" if self.blends else "> 0"
            return f"must be {most} for {self.name}; to insert the opposite direction, negate the embedding"
        if self.blends and not 0 <= strength <= 1:
            more = "norm_matched_addition" if self.matches_norm else "addition"
            return f"must be in [0, 1] for {self.name}; use {more} for more"
        if not self.blends and not 0 < strength < math.inf:
            return f"must be finite and > 0 for {self.name}"
        return None


REPLACING_MODES: Mapping[str, ReplacingMode] = {
    mode.name: mode
    for mode in (
        ReplacingMode("normalized", blends=True, matches_norm=False),
        ReplacingMode("addition", blends=False, matches_norm=False),
        ReplacingMode("norm_matched", blends=True, matches_norm=True),
        ReplacingMode("norm_matched_addition", blends=False, matches_norm=True),
    )
}


def norms(states: Tensor) -> Tensor:
    """Euclidean norms `[…, 1]` of states `[…, hidden]`, in float32 at least."""
    import torch  # not above: the settings of a run, and with them the options of the programs, need no torch

    exact = torch.promote_types(states.dtype, torch.float32)
    return torch.linalg.vector_norm(states.to(exact), dim=-1, keepdim=True)


def has_norm(embeddings: Tensor) -> Tensor:
    """Which embeddings `[…, hidden]` can be scaled to another norm, `[…]` bool: neither zero nor out of range."""
    own = norms(embeddings.detach())[..., 0]
    return (own > 0) & (own < math.inf)


def strengths_by_site(given: Any, sites: Iterable[Any]) -> dict[Any, Any]:
    """What `overlay_strength` says about each site: a mapping has an entry for each, anything else goes for all."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(sites, given)
    if given.keys() != set(sites):
        raise ValueError(
            f"overlay_strength is given for the layers {sorted(given, key=str)} and embeddings for "
            f"{sorted(sites, key=str)}; give one entry per layer, or one strength for all"
        )
    return dict(given)


def strengths_at(given: Any, n_locations: int) -> list[float]:
    """The strength at each insert location of one layer: `given` is a number, or a sequence or tensor `[n_locations]`.

    Raises `ValueError` for anything else; the range is the mode's to check.
    """
    given = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return [_number(given)] * n_locations
    if len(given) != n_locations:
        raise ValueError(
            f"overlay_strength has {len(given)} numbers for {n_locations} insert locations; give one for all, one per "
            "location, or {layer: ...} where layers differ"
        )
    return [_number(strength) for strength in given]


def _number(given: Any) -> float:
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"overlay_strength must be a number, not {reprlib.repr(given)}") from None
