"""Train a SelfIE adapter, which makes soft tokens of vectors, for your own model from vectors whose labels are known.

    python scripts/train_reader.py --data scripts/examples/topics.csv --layer 24 --output reader.safetensors
    python scripts/get_interpretations_from_examples.py --reader reader.safetensors --tokens last --examples mine.json

The data is a table, .csv, .jsonl or .parquet, with the columns prompt (whose last token is read at --layer) or vector,
and label. A run that was stopped resumes when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from common.labelled import labelled_vectors
from common.measured_model import load
from common.options import MODEL, ONE_PROMPT, add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.readers.training import AdapterSettings, Step


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, train, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    given = {"default": None, "help": "a built-in name or a file (default: as published)", "shown": ""}
    add_options(
        parser,
        *(*MODEL, "interpretation_prompts", "output"),
        interpretation_prompts=ONE_PROMPT | given,
        output={"default": Path("reader.safetensors"), "help": "the adapter to write"},
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="columns label, and prompt or vector; split if any")
    add("--layer", type=int, metavar="N", help="whose hidden states are read, or the vectors are of")
    add("--raw", action="store_true", help="prompts are read as they are, not as a user's turn")
    add("--kind", default="scalar_affine", help="or scale_only, scalar_affine_plus_low_rank (default: scalar_affine)")
    add("--rank", type=int, default=64, metavar="N", help="of the low rank (default: 64)")
    add("--init-scale", type=float, default=5.0, metavar="X", help="norm of the first soft tokens (default: 5)")
    mean = argparse.BooleanOptionalAction
    add("--subtract-mean", action=mean, help="that of the training vectors (default: of prompts yes, of vectors no)")
    add("--held-out", type=float, default=0.1, metavar="X", help="share for validation, without a column split (0.1)")
    add("--steps", type=int, default=400, metavar="N", help="default: 400")
    add("--batch-size", type=int, default=16, metavar="N", help="vectors of a step (default: 16)")
    add("--learning-rate", type=float, default=0.01, metavar="X", help="default: 0.01")
    add("--every", type=int, default=25, metavar="N", help="steps from one checkpoint to the next (default: 25)")
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    return parse_options(parser, argv)


def train(arguments: argparse.Namespace) -> int:
    """Check, load, read, train, write."""
    from tqdm import tqdm
    from transformers.interpretation.prompts.spec_files import find_spec
    from transformers.interpretation.readers.labelled_vectors import LabelledVectors, held_out_share
    from transformers.interpretation.readers.selfie_adapter import MEANS, mean_is_beside
    from transformers.interpretation.readers.training import train_adapter
    from transformers.interpretation.vectors.labelled import TRAINING, VALIDATION, read_labelled

    output: Path = arguments.output
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    prompt = arguments.interpretation_prompt
    inputs = {"the data": arguments.data, "the interpretation prompt": None if prompt is None else Path(prompt)}
    try:
        outputs = {"the adapter": output, "the mean": output.with_name(MEANS), "the checkpoint": checkpoint}
        check_files(outputs, inputs | files_of_models(arguments.model))
        if output.suffix != ".safetensors":
            raise ValueError(f"the output {output} must be named .safetensors")
        table = read_labelled(arguments.data).of(TRAINING, VALIDATION)
        settings = settings_of(arguments, subtract_mean=table.vectors is None)
        if table.splits is None:
            held_out = held_out_share(len(table.labels), arguments.held_out, settings.seed)
        else:
            held_out = tuple(split == VALIDATION for split in table.splits)
        spec = None if prompt is None else find_spec(prompt)
        loaded = load(arguments)
        began = time.monotonic()
        vectors = labelled_vectors(loaded, table, arguments.layer, raw=arguments.raw)
        data = LabelledVectors(vectors, table.labels, held_out, arguments.layer)
        if settings.subtract_mean:
            mean_is_beside(output, data.mean, data.layer)
        with tqdm(total=settings.steps, unit="step") as bar:
            trained = train_adapter(
                loaded.model,
                loaded.tokenizer,
                data,
                prompt=spec,
                settings=settings,
                checkpoint=checkpoint,
                on_step=lambda step: report(bar, step),
            )
        trained.save(output, model=loaded.name)
    except ValueError as error:
        return fail(error, REFUSED)
    checkpoint.unlink(missing_ok=True)
    where = "" if data.layer is not None else " --layers N"
    print(
        f"{output} in {time.monotonic() - began:,.0f} s: {len(held_out) - sum(held_out)} labelled vectors, "
        f"{sum(held_out)} held out; their labels {trained.loss_before:.2f} nats per token before, {trained.loss:.2f} "
        f"after {trained.step} steps: use it with --reader {output}{where}"
    )
    return 0


def settings_of(arguments: argparse.Namespace, *, subtract_mean: bool) -> AdapterSettings:
    """subtract_mean: where the option does not say. Raises ValueError."""
    from transformers.interpretation.readers.training import AdapterSettings

    names = {field.name for field in fields(AdapterSettings)}
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    return AdapterSettings(**{"subtract_mean": subtract_mean, **given})


def report(bar, step: Step) -> None:
    """The bar's next step, with the losses."""
    bar.n = step.number + 1
    bar.set_postfix_str(f"loss {step.loss:.2f}", refresh=False)
    bar.update(0)
    if step.validation is not None:
        bar.write(f"step {step.number + 1}: {step.validation:.3f} nats per token of held-out labels", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
