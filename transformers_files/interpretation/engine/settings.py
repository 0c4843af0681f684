"""How vectors are interpreted: where they are inserted, and how the text that follows is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..models.layer_spec import SAME, InsertLayer, insert_layer_of, insert_layer_text
from ..models.places import RESIDUAL, WRITING_POINTS
from ..surgery.modes import REPLACING_MODES
from .sampling import Sampling

DEEP_FROM, DEEP_TO = 0.7, 0.8
"""Of the depth: where the gain of deep states begins to rise, and where it is reached."""


@dataclass(frozen=True)
class InterpretationSettings:
    """How to interpret; the same for every cell of a run."""

    insert_layer: InsertLayer = 1
    """The decoder layer at whose input the vector is inserted; several: at each of them; "same": each cell's own."""
    replacing_mode: str = "normalized"
    """How: one of `modes.REPLACING_MODES`."""
    overlay_strength: float | Sequence[float] = 1.0
    """Weight of the vector; several: one per placeholder of the interpretation prompt."""
    max_new_tokens: int = 30
    """An interpretation ends here at the latest; else with its first end-of-sequence token, or as its prompt says."""
    guidance: float = 0.0
    """γ ≥ 0: each token is the best by log p + γ · (log p − log q) among the plausible ones, p with the vector inserted
    and q after the same text and the untouched prompt. 0: raw argmax. Known as contrastive decoding (Li and others
    2022, arXiv:2210.15097), context-aware decoding (Shi and others 2023, 2305.14739) and classifier-free guidance for
    language models (Sanchez and others 2023, 2306.17806)."""
    plausibility: float = 0.1
    """With guidance, tokens with p below so many times the largest are left out (the bound of contrastive decoding):
    what is improbable with and without the vector may have any ratio."""

    deep_gain: float = 1.0
    """What a vector from deep layers is multiplied with at the last placeholder: 1 up to DEEP_FROM of the depth, rising
    to this at DEEP_TO and beyond. A deep state is turned away from what it says on its way through the layers between
    unless it is much longer than what they add; a shallow one that is longer only drowns the interpretation prompt."""

    sampling: Sampling | None = None
    """Tokens drawn at random, of the guided distribution where there is guidance: among the plausible tokens as
    p · (p/q)^γ, at the temperature and from the nucleus of the sampling. None: the best one, always."""

    insert_place: str = RESIDUAL
    """Where in its decoder layer, or behind it, the vector is inserted; one of `places.WRITING_POINTS`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "insert_layer", insert_layer_of(self.insert_layer))
        if self.replacing_mode not in tuple(REPLACING_MODES):
            raise ValueError(f"replacing_mode is {self.replacing_mode!r}: use one of {', '.join(REPLACING_MODES)}")
        if self.insert_place not in WRITING_POINTS:
            raise ValueError(f"insert_place is {self.insert_place!r}: use one of {', '.join(WRITING_POINTS)}")
        given = self.overlay_strength
        given = given.tolist() if hasattr(given, "tolist") else given
        object.__setattr__(self, "overlay_strength", tuple(given) if isinstance(given, Sequence) else given)
        for strength in given if isinstance(given, Sequence) else [given]:
            if problem := REPLACING_MODES[self.replacing_mode].strength_problem(strength):
                raise ValueError(f"overlay_strength is {strength}: {problem}")
        if not hasattr(self.max_new_tokens, "__index__"):
            raise ValueError(f"max_new_tokens is {self.max_new_tokens!r}: give a whole number")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: at least one token is needed")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}: it must be finite and not less than 0 (0: raw argmax)")
        if not 0 <= self.plausibility <= 1:
            raise ValueError(f"plausibility is {self.plausibility}: it must be in [0, 1]")
        if not 0 < self.deep_gain < math.inf:
            raise ValueError(f"deep_gain is {self.deep_gain}: it must be finite and greater than 0 (1: no gain)")

    def layers_of(self, sources: Sequence[int]) -> tuple[int, ...]:
        """The layers that vectors from these layers are inserted at."""
        if self.insert_layer == SAME:
            return tuple(sources)
        return self.insert_layer if isinstance(self.insert_layer, tuple) else (self.insert_layer,)

    def gain(self, depth: float | None) -> float:
        """The factor at the last placeholder for a vector from that depth, 0 to 1; None: from no layer."""
        risen = 0.0 if depth is None else (depth - DEEP_FROM) / (DEEP_TO - DEEP_FROM)
        return 1 + (self.deep_gain - 1) * min(1.0, max(0.0, risen))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> InterpretationSettings:
        """Those among the entries of a mapping, such as a manifest's settings; sampling and place may be absent.

        Raises KeyError, TypeError, ValueError."""
        sampling, place = given.get("sampling"), given.get("insert_place", RESIDUAL)
        plain = {one.name: given[one.name] for one in fields(cls) if one.name not in ("sampling", "insert_place")}
        drawn = Sampling(**sampling) if isinstance(sampling, Mapping) else sampling
        return cls(**plain, sampling=drawn, insert_place=place)

    @property
    def description(self) -> str:
        """For people: "inserted at layer 1, normalized, strength 1, guidance 1"."""
        layer = insert_layer_text(self.insert_layer)
        where = "inserted at the layer it comes from" if layer == SAME else f"inserted at layer {layer}"
        where += "" if self.insert_place == RESIDUAL else f" ({self.insert_place.replace('_', ' ')})"
        given = self.overlay_strength if isinstance(self.overlay_strength, tuple) else (self.overlay_strength,)
        strength = ", ".join(f"{number:g}" for number in given)
        chosen = [f"guidance {self.guidance:g}"] if self.guidance else []
        chosen += [self.sampling.description] if self.sampling else []
        gain = f", deep gain {self.deep_gain:g}" if self.deep_gain != 1 else ""
        decoding = ", ".join(chosen) or "raw argmax"
        return f"{where}, {self.replacing_mode.replace('_', ' ')}, strength {strength}{gain}, {decoding}"


DEFAULTS = InterpretationSettings(insert_layer=2, guidance=0.5, deep_gain=4.0)
"""How `interpret`, the programs and the notebook interpret unless asked otherwise; chosen by measurement, which
scripts/README.md reports. `InterpretationSettings()` itself is the plain definition: raw argmax."""
DEFAULT_PROMPT = "describe"
"""The built-in interpretation prompt that goes with them."""
