"""What evaluate_interpretations.py measures under the name "echoes": the interpretation prompt's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.interpretation.measures import Interpreter
    from transformers.interpretation.prompts.examples import Example

SHOWN = 8


def echoes_section(interpreter: Interpreter, examples: Sequence[Example], layers: Sequence[int]) -> dict[str, Any]:
    """Words of the interpretation prompt by how many cells say them."""
    from transformers.interpretation.measures import score_echoes

    echoes = score_echoes(interpreter, examples, layers)
    return {"interpretations": echoes.cells, "words": echoes.shares}


def echoes_text(section: dict[str, Any]) -> str:
    """For reading."""
    words = list(section["words"].items())[:SHOWN]
    listed = ", ".join(f"{word} {share:.1%}" for word, share in words)
    return f"the interpretation prompt's own words in {section['interpretations']:,} interpretations: {listed}"
