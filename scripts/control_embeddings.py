"""Change a model until what it says about chosen embeddings is what was asked for; a LoRA adapter, or layers, as files.

    python scripts/control_embeddings.py --targets scripts/examples/control.json --output control     # the small model

The untouched model interprets the changed one's embeddings; gradients flow back through the inserted vector. Next
to the weights the folder has `before_after.json`: what both say and answer, prompt by prompt. A run that was stopped
resumes from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.measured_model import Loaded, load
from common.options import MODEL, ONE_PROMPT, add_options, parse_options, settings_names
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.control.training import Step

ANSWER_TOKENS = 8
"""Of the continuations that are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, change, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(
        parser,
        *(*MODEL, "interpretation_prompts", "output", *settings_names()),
        interpretation_prompts=ONE_PROMPT,
        dtype={"default": "float32"},
        max_new_tokens={"default": 12},
        output={"default": Path("control"), "metavar": "FOLDER", "help": "the folder to write"},
    )
    add = parser.add_argument
    add(
        "--targets",
        type=Path,
        required=True,
        metavar="FILE.json",
        help="which embeddings, and what is to be said of them",
    )
    add("--layers", metavar="LAYERS", help="decoder layers that change: 12:24, 20 (default: all below the targets)")
    add(
        "--training",
        default="lora",
        choices=("lora", "full"),
        help="an adapter, or the layers themselves (default: lora)",
    )
    add("--rank", type=int, default=8, metavar="N", help="of the adapter (default: 8)")
    add("--steps", type=int, default=100, metavar="N", help="default: 100")
    add("--learning-rate", type=float, default=1e-3, metavar="X", help="default: 0.001")
    add("--keep", type=float, default=100.0, metavar="X", help="weight of how far references move (default: 100)")
    add("--samples", type=int, default=8, metavar="N", help="of each rewarded interpretation, in a step (default: 8)")
    add("--every", type=int, default=20, metavar="N", help="steps from one checkpoint to the next (default: 20)")
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    return parse_options(parser, argv)


def change(arguments: argparse.Namespace) -> int:
    """Check, load, train, write, show."""
    from transformers.interpretation.control import ControlSettings, control, read_targets
    from transformers.interpretation.control.training import CHECKPOINT
    from transformers.interpretation.engine.settings import InterpretationSettings
    from transformers.interpretation.prompts.index_selection import Selection
    from transformers.interpretation.prompts.spec_files import find_spec

    shown = arguments.output / "before_after.json"
    inputs = {"the targets": arguments.targets, "the interpretation prompt": Path(arguments.interpretation_prompt)}
    try:
        check_files({"what is shown": shown}, inputs | files_of_models(arguments.model))
        file, spec = read_targets(arguments.targets), find_spec(arguments.interpretation_prompt)
        how = InterpretationSettings(**{name: getattr(arguments, name) for name in settings_names()})
        names = ("training", "rank", "steps", "learning_rate", "keep", "samples", "seed")
        given = {name: getattr(arguments, name) for name in names}
        ControlSettings(**given)
        chosen = None if arguments.layers is None else Selection(arguments.layers)
        loaded = load(arguments)
        layers = None if chosen is None else tuple(chosen.resolve(loaded.n_layers, ends_after_norm=False))
        targets, prompt = file.targets(loaded.model, loaded.tokenizer), spec.build(loaded.tokenizer)
        began = time.monotonic()
        tuned = control(
            loaded.model,
            loaded.tokenizer,
            targets,
            references=file.references,
            settings=ControlSettings(layers=layers, **given),
            prompt=prompt,
            how=how,
            checkpoints=arguments.output,
            every=arguments.every,
            on_step=report,
        )
    except ValueError as error:
        return fail(error, REFUSED)
    tuned.save(arguments.output)
    wanted = [(target.prompt, target.layer, target.token, target.raw) for target in targets]
    wanted += [(text, targets[0].layer, -1, True) for text in file.held_out]
    rows = [compared(loaded, tuned.model, prompt, how, *one) for one in wanted]
    shown.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (arguments.output / CHECKPOINT).unlink(missing_ok=True)
    for row in rows:
        print(f"{row['prompt']} (layer {row['layer']})")
        for what in ("interpretation", "answer"):
            before, after = (" ".join(text.split()) for text in row[what])
            print(f"    {what}: {before} → {after}")
    print(f"{arguments.output} in {time.monotonic() - began:,.0f} s: {len(tuned.trained)} tensors changed")
    return 0


def report(step: Step) -> None:
    """Now and then."""
    if step.number % 10 == 0:
        print(f"step {step.number}: {step.target:.3f}, references moved {step.moved:.4f}", file=sys.stderr, flush=True)


def compared(
    loaded: Loaded, changed: Any, prompt: Any, how: Any, text: str, layer: int, token: int, raw: bool
) -> dict[str, Any]:
    """What the untouched model says about both models' embeddings of a token, and what both answer."""
    import torch
    from transformers.interpretation.control.objective import source_ids
    from transformers.interpretation.measures import Interpreter
    from transformers.interpretation.measures.recovery import continuations
    from transformers.interpretation.models.activations import capture
    from transformers.interpretation.models.token_text import text_of

    ids = source_ids(loaded.tokenizer, text, raw)
    interpreter = Interpreter(loaded.model, loaded.tokenizer, prompt, how, batch_size=2)
    models = (loaded.model, changed)
    states = torch.cat([capture(model, torch.tensor([ids]), [layer], [token])[0] for model in models])
    answers = [text_of(loaded.tokenizer, continuations(model, [ids], ANSWER_TOKENS)[0]) for model in models]
    said = [one.text for one in interpreter(states, layer)]
    return {"prompt": text, "layer": layer, "token": token, "interpretation": said, "answer": answers}


if __name__ == "__main__":
    sys.exit(main())
