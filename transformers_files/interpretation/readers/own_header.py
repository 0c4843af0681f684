"""What a SelfIE adapter of one's own says besides what the published ones do: prompt, source layer, model.

A published adapter's prompt is known for two tokenizers alone, and its layer only where a mean lies beside it. This is
one more string in the file's header, which other programs ignore.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..prompts.interpretation_prompt import InterpretationPromptSpec
from ..prompts.spec_files import fields_of, spec_of
from .reader import ReaderError

KEY = "llm_interpret"
"""Its name in the header."""
_TYPES: dict[str, tuple[type, ...]] = {"prompt": (dict,), "layer": (int, type(None)), "mean": (bool,), "model": (str,)}


@dataclass(frozen=True)
class OwnHeader:
    """See the module's docstring."""

    prompt: InterpretationPromptSpec
    layer: int | None
    """Whose hidden states it was trained on; None: vectors that are of no layer."""
    mean: bool
    """Whether their mean lies beside the file."""
    model: str
    """Its name, for people."""

    def to_json(self) -> str:
        given = {"prompt": fields_of(self.prompt), "layer": self.layer, "mean": self.mean, "model": self.model}
        return json.dumps(given, ensure_ascii=False)

    @classmethod
    def of(cls, header: Mapping[str, str], path: Path) -> OwnHeader | None:
        """None where a header has nothing of ours. Raises ReaderError."""
        if KEY not in header:
            return None
        try:
            found = json.loads(header[KEY])
        except (ValueError, RecursionError) as error:
            raise ReaderError(f"reader {path}: found {KEY} in its header that is not JSON: {error}") from None
        if not isinstance(found, dict) or found.keys() != _TYPES.keys():
            what = sorted(found) if isinstance(found, dict) else found
            raise ReaderError(f"reader {path}: found {what!r} in {KEY} of its header, expected {sorted(_TYPES)}")
        for name, kinds in _TYPES.items():
            if not isinstance(found[name], kinds) or (name == "layer" and isinstance(found[name], bool)):
                raise ReaderError(f"reader {path}: found {name} {found[name]!r} in {KEY} of its header")
        try:
            spec = spec_of(found["prompt"], f"{KEY} of its header", "selfie_adapter")
        except ValueError as error:
            raise ReaderError(f"reader {path}: {error}") from None
        return cls(spec, found["layer"], found["mean"], found["model"])
