"""Fit a tuned lens or a Jacobian lens, on text that the model samples itself, and write it.

    python scripts/fit_lens.py tuned --layers 0:30:2 --output tuned.safetensors                  # the small model
    python scripts/fit_lens.py jacobian --layers 0:30:2 --output jacobian.safetensors
    python scripts/evaluate_interpretations.py --measures recovery --lens tuned.safetensors jacobian.safetensors

Prints, for each layer, by how many nats the model's own distribution and the lens's differ on texts that begin with
other openings, next to the same for the logit lens. To have mapped embeddings interpreted where the map leads:
get_interpretations_from_examples.py --mapping FILE --insert-layer N --replacing-mode norm_matched, N the last decoder
layer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.measured_model import load
from common.options import MODEL, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

HELD_OUT = 5
"""Every fifth opening is left out of fitting."""
TEXTS = {"tuned": 80, "jacobian": 8}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, fit, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("kind", choices=tuple(TEXTS), help="tuned: trained to predict the model's output; jacobian: its derivative")
    add_options(
        parser,
        *(*MODEL, "layers", "output"),
        layers={"default": "all", "help": "decoder layers whose inputs are mapped, one map each: all, 24, 0:30:2, …"},
        output={"default": Path("lens.safetensors"), "help": "the lens to write"},
    )
    texts = ", ".join(f"{kind}: {number}" for kind, number in TEXTS.items())
    add("--texts", type=int, metavar="N", help=f"that the model samples to fit on (default: {texts})")
    add("--text-tokens", type=int, default=48, metavar="N", help="length of each (default: 48)")
    add("--steps", type=int, default=150, metavar="N", help="of a tuned lens, 64 states each (default: 150)")
    return parse_options(parser, argv)


def fit(arguments: argparse.Namespace) -> int:
    """Check, load, fit, write."""
    from transformers.interpretation.mapping.lenses import (
        JACOBIAN,
        TunedLensSettings,
        fit_jacobian_lens,
        fit_tuned_lens,
        lens_losses,
    )
    from transformers.interpretation.mapping.training_text import OPENINGS, OwnTextSettings, sample_texts
    from transformers.interpretation.prompts.index_selection import Selection

    held_out = OPENINGS[::HELD_OUT]
    number = TEXTS[arguments.kind] if arguments.texts is None else arguments.texts
    try:
        check_files({"the lens": arguments.output}, files_of_models(arguments.model))
        others = [opening for opening in OPENINGS if opening not in held_out]
        openings = (others * (number // len(others) + 1))[: max(number, 0)]
        text, unseen = (
            OwnTextSettings(tuple(ones), 1, text_tokens=arguments.text_tokens) for ones in (openings, held_out)
        )
        settings, selection = TunedLensSettings(arguments.steps), Selection(arguments.layers)
        loaded = load(arguments)
        layers = selection.resolve(loaded.n_layers, ends_after_norm=False)
        began = time.monotonic()
        texts = sample_texts(loaded.model, loaded.tokenizer, text)
        if arguments.kind == JACOBIAN:
            lens = fit_jacobian_lens(loaded.model, texts, layers, tell_progress)
        else:
            lens = fit_tuned_lens(loaded.model, texts, layers, settings, tell_loss)
    except ValueError as error:
        return fail(error, REFUSED)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    lens.save(arguments.output)
    seconds = time.monotonic() - began
    losses = lens_losses(loaded.model, sample_texts(loaded.model, loaded.tokenizer, unseen), lens.maps)
    print(f"KL(model ‖ lens) on {len(held_out)} held-out texts, in nats\n    layer   logit lens{arguments.kind:>12}")
    for layer, (plain, fitted) in losses.items():
        print(f"{layer:>9}{plain:>13.2f}{fitted:>12.2f}")
    print(f"{arguments.output} in {seconds:,.0f} s: use it with evaluate_interpretations.py --lens {arguments.output}")
    return 0


def tell_loss(step: int, loss: float) -> None:
    """Of a tuned lens, now and then."""
    if step % 10 == 0:
        print(f"step {step}: {loss:.3f} nats", file=sys.stderr, flush=True)


def tell_progress(done: int, passes: int) -> None:
    """Of a Jacobian lens, now and then."""
    if done % 50 == 0 or done == passes:
        print(f"{done} of {passes} backward passes", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
