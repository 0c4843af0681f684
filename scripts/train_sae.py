"""Train a small sparse autoencoder on a layer's states of text that the model samples itself; written as SAELens does.

    python scripts/train_sae.py --layer 12 --output sae                             # the small model: minutes
    python scripts/get_interpretations_from_examples.py --vectors sae --rows 0:64 --output features.csv

Besides its weights the folder has the texts, `texts.jsonl`: a corpus for find_contexts.py and score_labels.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.measured_model import load
from common.options import MODEL, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

HELD_OUT = 10
"""Every tenth state is left out of training."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, fit, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(parser, *MODEL, "output", output={"default": Path("sae"), "help": "the folder to write"})
    add = parser.add_argument
    add("--layer", type=int, required=True, metavar="N", help="of the hidden states, from 1 on")
    add("--texts", type=int, default=24, metavar="N", help="that the model samples for each opening (default: 24)")
    add("--features", type=int, default=1024, metavar="N", help="of the autoencoder (default: 1024)")
    add("--active", type=int, default=16, metavar="N", help="features of a state at once (default: 16)")
    add("--steps", type=int, default=2000, metavar="N", help="of 512 states each (default: 2000)")
    add("--seed", type=int, default=0, metavar="N", help="of its weights and batches (default: 0)")
    return parse_options(parser, argv)


def fit(arguments: argparse.Namespace) -> int:
    """Check, load, sample, train, write."""
    import torch
    from transformers.interpretation.features.sparse_autoencoder import SaeSettings, save, train
    from transformers.interpretation.mapping.training_text import SKIPPED, OwnTextSettings, sample_texts
    from transformers.interpretation.models.activations import capture
    from transformers.interpretation.models.token_text import text_of

    texts_file = arguments.output / "texts.jsonl"
    try:
        check_files({"the texts": texts_file}, files_of_models(arguments.model))
        settings = SaeSettings(
            features=arguments.features, active=arguments.active, steps=arguments.steps, seed=arguments.seed
        )
        text = OwnTextSettings(texts_per_opening=arguments.texts)
        loaded = load(arguments)
        if not 1 <= arguments.layer < loaded.n_layers:
            raise ValueError(f"layer {arguments.layer} is out of range: 1 to {loaded.n_layers - 1}")
    except ValueError as error:
        return fail(error, REFUSED)
    began = time.monotonic()
    texts = sample_texts(loaded.model, loaded.tokenizer, text)
    positions = list(range(SKIPPED, texts.shape[1]))
    each = [capture(loaded.model, ids[None], [arguments.layer], positions)[0].float() for ids in texts]
    states = torch.cat(each)
    held_out = torch.arange(len(states)) % HELD_OUT == 0
    print(f"{len(states):,} states of {len(texts):,} texts in {time.monotonic() - began:,.0f} s", file=sys.stderr)
    sae = train(states[~held_out], settings, tell_loss)
    alive = int((sae.activations(states[~held_out]) > 0).any(0).sum())
    save(sae, arguments.output, model=loaded.name, layer=arguments.layer)
    with texts_file.open("w", encoding="utf-8") as file:
        for ids in texts.tolist():
            file.write(json.dumps({"text": text_of(loaded.tokenizer, ids)}, ensure_ascii=False) + "\n")
    print(
        f"{arguments.output} in {time.monotonic() - began:,.0f} s: {sae.n} features, {alive} of them active, "
        f"{sae.variance_explained(states[held_out]):.0%} of the variance of held-out states, {arguments.active} at once"
    )
    return 0


def tell_loss(step: int, loss: float) -> None:
    """Now and then."""
    if step % 200 == 0:
        print(f"step {step}: {loss:.3f} of the variance left", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
