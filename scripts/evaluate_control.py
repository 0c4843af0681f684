"""Edit facts through their explanations, and by plain fine-tuning: what the model then answers, and what it keeps.

    python scripts/evaluate_control.py --edits 10 --output control.json

Edits are of facts that the model knows, each to the answer of another fact of its relation. References, whose states
are held, are prompts of the other half.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from common.measured_model import add_measuring_options, load
from common.options import add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.control.editing import Outcome

COLUMNS = {
    "prompt": "new answer to the prompt",
    "paraphrase": "to a paraphrase",
    "relation_kept": "same relation kept",
    "others_kept": "other relations kept",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, evaluate, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_measuring_options(parser)
    add_options(
        parser, "output", output={"default": Path("control.json"), "metavar": "FILE.json", "help": "what was measured"}
    )
    parser.set_defaults(dtype="float32")
    add = parser.add_argument
    half = "of the facts that are edited (default: held-out)"
    add("--half", default="held-out", choices=("tuning", "held-out"), help=half)
    add("--edits", type=int, default=10, metavar="N", help="how many, spread over the relations (default: 10)")
    add("--layer", type=int, default=24, metavar="N", help="hidden state that is explained (default: 24)")
    add("--layers", default="12:24", metavar="LAYERS", help="decoder layers that change (default: 12:24)")
    add("--steps", type=int, default=25, metavar="N", help="default: 25")
    add("--learning-rate", type=float, default=1e-3, metavar="X", help="default: 0.001")
    add("--keep", type=float, default=100.0, metavar="X", help="weight of how far references move (default: 100)")
    return parse_options(parser, argv)


def evaluate(arguments: argparse.Namespace) -> int:
    """Check, load, edit, measure, report."""
    from transformers.interpretation.control import ControlSettings
    from transformers.interpretation.control.editing import (
        edit_by_explanation,
        edit_by_fine_tuning,
        edits_of,
        outcome_of,
        spread,
    )
    from transformers.interpretation.measures import of_half, read_facts
    from transformers.interpretation.measures.recovery import known_facts
    from transformers.interpretation.measures.statistics import estimate
    from transformers.interpretation.prompts.index_selection import Selection

    try:
        check_files(
            {"the results": arguments.output}, {"the facts": arguments.facts} | files_of_models(arguments.model)
        )
        facts = read_facts(arguments.facts)
        names = ("steps", "learning_rate", "keep")
        ControlSettings(**{name: getattr(arguments, name) for name in names})
        if arguments.edits < 1:
            raise ValueError(f"--edits {arguments.edits}: at least one")
        loaded = load(arguments)
        layers = tuple(Selection(arguments.layers).resolve(loaded.n_layers, ends_after_norm=False))
        settings = ControlSettings(layers, **{name: getattr(arguments, name) for name in names})
        known = known_facts(loaded.model, loaded.tokenizer, of_half(facts, arguments.half))
        other = "tuning" if arguments.half == "held-out" else "held-out"
        references = [fact.prompt for fact in of_half(facts, other)]
        edits = spread(edits_of(known), arguments.edits)
        began = time.monotonic()
        outcomes: dict[str, list[Outcome]] = {}
        for name, method in (("explanation", edit_by_explanation), ("fine-tuning", edit_by_fine_tuning)):
            outcomes[name] = []
            for edit in edits:
                tuned = method(loaded.model, loaded.tokenizer, edit, references, arguments.layer, settings)
                outcomes[name].append(outcome_of(tuned.model, loaded.tokenizer, edit, known))
                print(f"{name}: {edit.fact.prompt} → {edit.answer}: {outcomes[name][-1]}", file=sys.stderr, flush=True)
    except ValueError as error:
        return fail(error, REFUSED)
    each = {name: [asdict(one) for one in of_one] for name, of_one in outcomes.items()}
    means = {name: {one: estimate([float(row[one]) for row in rows]) for one in COLUMNS} for name, rows in each.items()}
    print(f"{'':14}" + "".join(f"{title:>28}" for title in COLUMNS.values()))
    for name, of_one in means.items():
        print(f"{name:14}" + "".join(f"{of_one[one]!s:>28}" for one in COLUMNS))
    content = {
        "edits": [{"prompt": edit.fact.prompt, "was": edit.fact.answer, "to": edit.answer} for edit in edits],
        "outcomes": each,
        "means": {name: {one: asdict(value) for one, value in of_one.items()} for name, of_one in means.items()},
    }
    arguments.output.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.output} in {time.monotonic() - began:,.0f} s: {len(edits)} edits, {len(known)} known facts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
