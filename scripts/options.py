"""The options of get_interpretations_from_examples.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

DEMO = Path(__file__).resolve().parent / "examples" / "demo.json"
DESCRIPTION = "Natural-language interpretations of a model's hidden embeddings, for a file of example prompts."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--model", default=argparse.SUPPRESS, help="hub id or folder (default: the small embedded model)")
    add(
        "--examples",
        type=Path,
        default=DEMO,
        metavar="FILE.json",
        help="the prompts; -: from standard input (default: the demo's)",
    )
    add(
        "--output",
        type=Path,
        default=Path("interpretations.csv"),
        metavar="FILE",
        help="the table to write, .csv or .parquet (default: %(default)s)",
    )
    add(
        "--layers",
        help="of the n_layers + 1 hidden states: all, 0,5,10, 0:30:5, -1 (after the last norm); default: all, or those "
        "of the mapping",
    )
    add(
        "--tokens",
        default="all",
        help="all (prompt and output); of the prompt alone: last, 3,4, -2, 1:5, mean(1:5); default: all",
    )
    add(
        "--place",
        default="residual",
        help="where embeddings are read: residual (default), attention_output, mlp_input, mlp_output",
    )
    add(
        "--interpretation-prompt",
        action="append",
        metavar="NAME|FILE.json",
        default=argparse.SUPPRESS,
        help="a built-in name or a file; may be repeated (default: describe)",
    )
    add(
        "--insert-layer",
        type=decoder_layers,
        default=1,
        metavar="N",
        help="decoder layer to insert at (default: %(default)s); 1,3: at both; same: where each embedding comes from",
    )
    add(
        "--replacing-mode",
        default="normalized",
        metavar="MODE",
        help="normalized, which blends (default), addition, norm_matched or norm_matched_addition",
    )
    add(
        "--overlay-strength",
        type=numbers,
        default=1.0,
        metavar="X",
        help="weight of the embedding (default: %(default)s); 1,0.5,0.5: of each placeholder",
    )
    add(
        "--guidance",
        type=float,
        default=argparse.SUPPRESS,
        metavar="X",
        help="weigh each token by what the same text is worth without the embedding (default: 1; 0: raw argmax)",
    )
    add(
        "--plausibility",
        type=float,
        default=argparse.SUPPRESS,
        metavar="X",
        help="with guidance, leave out tokens less probable than so many times the best (default: 0.1)",
    )
    add(
        "--source-model",
        metavar="NAME|FOLDER",
        help="explain this model's embeddings: it reads the prompts, --model interprets (default: the same)",
    )
    add(
        "--mapping",
        type=Path,
        metavar="FILE.safetensors",
        help="maps by source layer, as fit_translator.py writes them: embeddings go through theirs first",
    )
    add(
        "--max-new-tokens",
        type=int,
        default=30,
        metavar="N",
        help="of an interpretation, at most (default: %(default)s)",
    )
    add(
        "--prompt-output-tokens",
        type=int,
        default=1,
        metavar="N",
        help="generated after each prompt (default: %(default)s)",
    )
    add("--batch-size", type=int, metavar="N", help="interpretations at once; without it, as many as memory suggests")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="auto (default): bfloat16 if native",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    add(
        "--device-map",
        metavar="MAP",
        help="spread the model: auto, balanced, balanced_low_0, sequential, or a .json file that gives each module a "
        "device; in place of --device",
    )
    add("--max-memory", metavar="DEVICE=SIZE,…", help="the most that a device map uses, as in 0=20GB,cpu=60GB")
    add("--offload-folder", type=Path, metavar="DIR", help="for weights that a device map puts on the disk")
    add("--csv-safe", action="store_true", help="guard cells that a spreadsheet would take for formulas")
    add("--overwrite", action="store_true", help="start anew over the output of an earlier run")
    page = parser.add_mutually_exclusive_group()
    page.add_argument("--report", type=Path, metavar="FILE.html", help="the report (default: beside the table)")
    page.add_argument("--no-report", action="store_true", help="write no report")
    add("--show", nargs="?", const="", metavar="NAME", help="print the grid of an example: the first, or the one named")
    add("--trust-remote-code", action="store_true", help="let the model's own code run on this machine")
    add("--plan", action="store_true", help="say how much work it is, and do nothing; no weights are loaded")
    add(
        "--rate",
        metavar="X|XTFLOP/s|measure",
        help="with --plan: interpretations or FLOPs per second of a device, for the hours; measure: load and try",
    )
    add("--devices", type=int, metavar="N", help="with --plan: how many share the work (default: 1)")
    arguments = parser.parse_args(_join_negative_values(argv))
    if not arguments.plan and (arguments.rate or arguments.devices is not None):
        parser.error("--rate and --devices go with --plan")
    return arguments


def numbers(text: str) -> float | tuple[float, ...]:
    """`0.5`, or several: `1,0.5,0.5`."""
    several = tuple(float(number) for number in text.split(","))
    return several[0] if len(several) == 1 else several


def decoder_layers(text: str) -> str | tuple[int, ...]:
    """`1`, `1,3` or `same`."""
    return text if text == "same" else tuple(int(layer) for layer in text.split(","))


def _join_negative_values(argv: Sequence[str]) -> list[str]:
    """`--layers -5:` as `--layers=-5:`: argparse takes the second word for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in ("--layers", "--tokens") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
