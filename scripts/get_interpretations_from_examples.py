"""Natural-language interpretations of a model's hidden embeddings, for a file of example prompts, as a CSV.

    python scripts/get_interpretations_from_examples.py                    # the demo: a small model, a few prompts
    python scripts/get_interpretations_from_examples.py --model meta-llama/Llama-3.1-8B-Instruct --examples mine.json
    accelerate launch --num_processes 8 scripts/get_interpretations_from_examples.py …     # the same, eight at work

Everything that can be checked is checked before the model's weights are loaded; then nothing has been written yet, and
the exit status is 2. A run that was killed goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from display import Display
from planning import Planning
from program import INTERRUPTED, REFUSED, STOPPED, embedded_model, fail, prepare_environment, remedy_for

if TYPE_CHECKING:
    from transformers.interpretation.batch import Prepared, Request
    from transformers.interpretation.ranks import Ranks
    from transformers.interpretation.sharing import Progress

DEMO = Path(__file__).resolve().parent / "examples" / "demo.json"
REFUSAL_SECONDS = 5
"""Launchers end all processes with the first that ends: rank 0 has so long to say what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 complete, 1 stopped half-way, 2 refused, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank > 0 and size > 1:
        return assist(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        arguments = parse(argv)
        prepare_environment()
        from transformers.interpretation.ranks import joined

        with joined(arguments.device) as ranks:
            launcher = "python" if ranks is None else "accelerate launch …"
            return interpret_examples(arguments, f"{launcher} {shlex.join([sys.argv[0], *argv])}", ranks)
    except ModuleNotFoundError as error:
        return fail(remedy_for(error), REFUSED)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)


def assist(argv: Sequence[str]) -> int:
    """What the other processes of a launch do. What they have in common with rank 0, it says for all."""
    warnings.showwarning = lambda *_, **__: None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            arguments = parse(argv)
        prepare_environment()
        from transformers.interpretation import batch, work
        from transformers.interpretation.loading import ModelError
        from transformers.interpretation.manifest import OutputError
        from transformers.interpretation.ranks import joined
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # those of loading, too
        with joined(arguments.device) as ranks:
            if ranks.await_published("prepared") is None:
                return 0
            try:
                work.assist(batch.prepare(request_of(arguments, ranks.await_published("prepared")), ranks))
            except (batch.Refused, ModelError, OutputError) as error:
                ranks.fail(str(error))
                sys.exit(fail(f"{ranks.name}: {error}", STOPPED))
        return 0
    except (SystemExit, ModuleNotFoundError) as error:
        time.sleep(REFUSAL_SECONDS)
        return getattr(error, "code", REFUSED)
    except KeyboardInterrupt:
        return INTERRUPTED


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--model", default=argparse.SUPPRESS, help="hub id or folder (default: the small embedded model)")
    add("--examples", type=Path, default=DEMO, metavar="FILE.json", help="the prompts (default: the demo's)")
    add(
        "--output",
        type=Path,
        default=Path("interpretations.csv"),
        metavar="FILE",
        help="the table to write, .csv or .parquet (default: %(default)s)",
    )
    add(
        "--layers",
        default="all",
        help="of the n_layers + 1 hidden states: all, 0,5,10, 0:30:5, -1 (after the last norm); default: all",
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


def interpret_examples(arguments: argparse.Namespace, command: str, ranks: Ranks | None) -> int:
    """Check, load, run, tell. `command` is what to repeat after an interruption."""
    from transformers.interpretation.batch import Refused, check, prepare

    display = Display(arguments.report, arguments.no_report, arguments.show, arguments.output)
    planning = Planning(arguments.plan, arguments.rate, arguments.devices)
    if ranks is None and started_alone():
        print("accelerate has started one process; without several GPUs, more need --multi_gpu", file=sys.stderr)
    try:
        display.check()
        planning.check()
        if "model" not in arguments:
            check(request_of(arguments, ""))  # before the embedded model is made, which takes a while
            arguments.model = embedded_model()
        prepared = prepare(request_of(arguments, arguments.model), ranks)
        display.check_name([source.example.name for source in prepared.plan.sources])
    except Refused as error:
        return fail(error.problems, REFUSED)
    if planning.wanted:
        return planning.tell(prepared)
    if prepared.is_complete:
        rows = prepared.found.position.rows
        where = display.present(prepared, again=True)
        print(f"{where} is complete: {rows:,} interpretations (--overwrite starts anew)")
        return 0
    if ranks is not None:
        ranks.publish("prepared", arguments.model)
    return carry_out(prepared, display, command)


def request_of(arguments: argparse.Namespace, model: str) -> Request:
    """What the arguments ask for, without how it is shown."""
    from transformers.interpretation.batch import Request

    others = ("report", "no_report", "show", "plan", "rate", "devices")
    options = {key: value for key, value in vars(arguments).items() if key not in others}
    prompts = options.pop("interpretation_prompt", ("describe",))
    return Request(**options | {"model": model, "interpretation_prompts": tuple(prompts)})


def started_alone() -> bool:
    """Whether `accelerate launch` was asked for several processes and has started one, as it does without GPUs."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "RANK" not in os.environ


def carry_out(prepared: Prepared, display: Display, command: str) -> int:
    """Run, with a progress bar; then one line about it."""
    from tqdm import tqdm
    from transformers.interpretation.loading import ModelError
    from transformers.interpretation.manifest import OutputError
    from transformers.interpretation.memory import is_out_of_memory
    from transformers.interpretation.ranks import RankError
    from transformers.interpretation.work import run

    for line in prepared.notes():
        print(line, file=sys.stderr)
    rows = prepared.found.rows
    try:
        steps = run(prepared)
        start = progress = next(steps)  # loads the model, which may show a bar of its own
        began = time.monotonic()
        interval = 0.2 if sys.stderr.isatty() else 10.0  # a log file gets a line now and then
        with tqdm(total=prepared.plan.n_cells, initial=start.cells, unit="cell", mininterval=interval) as bar:
            for progress in steps:
                rows = progress.rows
                bar.update(progress.cells - bar.n)
        seconds = time.monotonic() - began
        where = display.present(prepared)
    except ModelError as error:
        return fail(str(error), REFUSED)
    except (OutputError, RankError) as error:
        return fail(f"{error}; to go on, put it right and repeat: {command}", STOPPED)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        safe = f"{rows:,} interpretations are safe for {prepared.request.output}"
        return fail(f"out of memory even with one interpretation at a time; {safe}", STOPPED)
    except KeyboardInterrupt:
        safe = f"{rows:,} interpretations are safe for {prepared.request.output}"
        return fail(f"interrupted; {safe}; to go on, repeat: {command}", INTERRUPTED)
    print(summary(progress, start.rows, seconds, where))
    return 0


def summary(progress: Progress, before: int, seconds: float, where: str) -> str:
    """How many interpretations, how fast, and where they are. `before`: rows of earlier runs."""
    failed = f", {progress.failed:,} of them failed (see the column status)" if progress.failed else ""
    earlier = f" ({before:,} from before)" if before else ""
    rate = f"{(progress.rows - before) / seconds:,.1f}/s" if seconds > 0 else "at once"
    return f"{progress.rows:,} interpretations{earlier}{failed} in {seconds:,.1f} s ({rate}): {where}"


if __name__ == "__main__":
    sys.exit(main())
