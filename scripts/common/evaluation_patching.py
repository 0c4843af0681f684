"""What evaluate_interpretations.py measures under the names "attributes" and "steps": Patchscopes' own experiments."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from common.evaluation_recovery import as_json

if TYPE_CHECKING:
    from transformers.interpretation.measures import Fact, Interpreter


def patching_sections(
    wanted: Collection[str],
    interpreter: Interpreter,
    known: Sequence[Fact],
    tuning: Sequence[Fact],
    layers: Sequence[int],
) -> dict[str, Any]:
    """Those that were asked for; two steps from each layer into each.

    known: facts that the model answers; tuning: what linear probes are fitted on.
    """
    from transformers.interpretation.measures import questions_of, score_attributes, score_two_steps, two_steps_of

    model, tokenizer, batch_size = interpreter.model, interpreter.tokenizer, interpreter.batch_size
    questions = questions_of([*known, *tuning])
    sections: dict[str, Any] = {}
    if "attributes" in wanted:
        try:
            found = score_attributes(model, tokenizer, questions, known, tuning, layers, batch_size=batch_size)
        except ValueError as error:
            print(f"no attributes of subjects: {error}", file=sys.stderr)
        else:
            sections["attributes of subjects"] = {"layers": {layer: as_json(one) for layer, one in found.items()}}
    if "steps" in wanted:
        pairs = two_steps_of(questions, known)
        try:
            repaired = score_two_steps(model, tokenizer, pairs, layers, layers, batch_size=batch_size)
        except ValueError as error:
            print(f"no two steps: {error}", file=sys.stderr)
        else:
            by_layer = {
                layer: {into: as_json(one) for (start, into), one in repaired.items() if start == layer}
                for layer in layers
            }
            sections["two steps"] = {"pairs": len(pairs), "layers": by_layer}
    return sections


def two_steps_text(section: dict[str, Any]) -> str:
    """Net shares from each layer (lines) into each (columns), and how many the model answers in one prompt."""
    rows = section["layers"]
    shares = [one for row in rows.values() for one in row.values()]
    alone = shares[0]["composed"]
    lines = [
        f"two steps, {section['pairs']} questions; both in one prompt: "
        f"{alone['value']:.0%} [{alone['low']:.0%}, {alone['high']:.0%}] answered",
        f"{'from':>9}" + "".join(f"{f'into {into}':>10}" for into in next(iter(rows.values()))),
    ]
    for layer, row in rows.items():
        lines.append(f"{layer:>9}" + "".join(f"{one['net']['value']:>10.0%}" for one in row.values()))
    best = max((one["net"] for one in shares), key=lambda share: share["value"])
    lines.append(
        f"net of another question's state; the best: {best['value']:.0%} [{best['low']:.0%}, {best['high']:.0%}]"
    )
    return "\n".join(lines)
