"""Fit a translator from source layers to the insert layer, on text that the model samples itself, and write it.

    python scripts/fit_translator.py --layers 24 --output translator.safetensors            # the small model
    python scripts/evaluate_interpretations.py --layers 24 --mapping translator.safetensors
    python scripts/get_interpretations_from_examples.py --mapping translator.safetensors

It is trained so that the model generates, after an interpretation prompt, its own continuation; no answers, no labels.
The file says what it was fitted for (prompt, insert layer, mode, strength, raw argmax), and the programs take it from
there unless their options say otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.measured_model import check_insert_layer, load
from common.options import MODEL, ONE_PROMPT, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

HOW_IT_IS_READ = {"replacing_mode": "normalized", "overlay_strength": 1.0, "guidance": 0.0, "deep_gain": 1.0}
"""As `fit_translator` reads what it translates."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, fit, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(
        parser,
        *(*MODEL, "layers", "interpretation_prompts", "insert_layer", "output"),
        layers={"required": True, "help": "source layers, one map each: 24, 18,24, 20:25:2, …", "shown": ""},
        interpretation_prompts=ONE_PROMPT | {"default": "describe_once"},
        insert_layer={"type": int, "default": 2, "help": "decoder layer to insert at"},
        output={"default": Path("translator.safetensors"), "help": "the maps to write"},
    )
    add = parser.add_argument
    add("--texts", type=int, default=80, metavar="N", help="that the model samples for each opening (default: 80)")
    add("--facts", type=Path, metavar="FILE.json", help="let texts begin with the prompts of its tuning half, too")
    add("--steps", type=int, default=1200, metavar="N", help="of 128 states each (default: 1200)")
    return parse_options(parser, argv)


def fit(arguments: argparse.Namespace) -> int:
    """Check, load, fit, write."""
    from transformers.interpretation.mapping.fitted_for import FITTED_FOR
    from transformers.interpretation.mapping.probe import PROBE, probe_of
    from transformers.interpretation.mapping.training_text import OPENINGS, OwnTextSettings
    from transformers.interpretation.measures import of_half, read_facts
    from transformers.interpretation.prompts.index_selection import Selection
    from transformers.interpretation.prompts.spec_files import find_spec
    from transformers.interpretation.translator import TranslatorSettings, fit_translator, save_maps

    inputs = {"the facts": arguments.facts, "the interpretation prompt": Path(arguments.interpretation_prompt)}
    inputs |= files_of_models(arguments.model)
    try:
        check_files({"the maps": arguments.output}, inputs)
        facts = of_half(read_facts(arguments.facts), "tuning") if arguments.facts else []
        openings = (*OPENINGS, *(fact.prompt for fact in facts))
        settings = TranslatorSettings(OwnTextSettings(openings, arguments.texts), arguments.steps)
        spec, selection = find_spec(arguments.interpretation_prompt), Selection(arguments.layers)
        loaded = load(arguments)
        layers = selection.resolve(loaded.n_layers, ends_after_norm=False)
        check_insert_layer(arguments.insert_layer, loaded, layers)
        prompt = spec.build(loaded.tokenizer)
    except ValueError as error:
        return fail(error, REFUSED)
    began = time.monotonic()

    def report(layer: int, step: int, loss: float) -> None:
        if step % 20 == 0 or step == settings.steps - 1:
            print(f"layer {layer}, step {step}: {loss:.3f} nats", file=sys.stderr, flush=True)

    maps = fit_translator(
        loaded.model,
        loaded.tokenizer,
        prompt,
        source_layers=layers,
        insert_layer=arguments.insert_layer,
        settings=settings,
        on_step=report,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    fitted_for = {
        "interpretation_prompt": arguments.interpretation_prompt,
        "insert_layer": arguments.insert_layer,
        **HOW_IT_IS_READ,
    }
    header = {PROBE: json.dumps(probe_of(loaded.model)), FITTED_FOR: json.dumps(fitted_for)}
    save_maps(maps, arguments.output, header)
    print(
        f"{arguments.output} in {time.monotonic() - began:,.0f} s: use it with --mapping {arguments.output} --layers "
        f"{','.join(map(str, layers))} --interpretation-prompt {arguments.interpretation_prompt} "
        f"--insert-layer {arguments.insert_layer}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
