"""Natural-language interpretations of a model's hidden embeddings, for a file of prompts or of vectors, as a table.

    python scripts/get_interpretations_from_examples.py                    # the demo: a small model, a few prompts
    python scripts/get_interpretations_from_examples.py --model meta-llama/Llama-3.1-8B-Instruct --examples mine.json
    accelerate launch --num_processes 8 scripts/get_interpretations_from_examples.py …     # the same, eight at work

Everything that can be checked is checked before the model's weights are loaded; then nothing has been written yet, and
the exit status is 2. A run that was stopped is resumed when the same command is repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.display import Display
from common.fitted_settings import parse_with_maps
from common.options import DEMO_EXAMPLES, add_options, request_fields, request_of
from common.planning import Planning
from common.program import (
    INTERRUPTED,
    REFUSED,
    STOPPED,
    embedded_model,
    fail,
    files_of_models,
    prepare_environment,
    remedy_for,
)

if TYPE_CHECKING:
    from transformers.interpretation.runs.coordination import Ranks
    from transformers.interpretation.runs.preparation import Prepared
    from transformers.interpretation.runs.request import RunRequest
    from transformers.interpretation.runs.work_queue import Progress

REFUSAL_SECONDS = 5
"""A launcher ends all processes with the first that ends: rank 0 has so long to report what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 complete, 1 stopped half-way, 2 refused, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank > 0 and size > 1:
        return assist(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        prepare_environment()
        arguments = parse(argv)
        from transformers.interpretation.runs.coordination import joined

        with joined(arguments.device) as ranks:
            launcher = "python" if ranks is None else "accelerate launch …"
            return interpret_examples(arguments, f"{launcher} {shlex.join([sys.argv[0], *argv])}", ranks)
    except ModuleNotFoundError as error:
        return fail(remedy_for(error), REFUSED)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    output = Path("interpretations.csv")
    add_options(parser, *request_fields(), examples={"shown": "the demo's"}, output={"default": output})
    add = parser.add_argument
    page = parser.add_mutually_exclusive_group()
    page.add_argument("--report", type=Path, metavar="FILE.html", help="the report (default: next to the table)")
    page.add_argument("--no-report", action="store_true", help="write no report")
    add("--show", nargs="?", const="", metavar="NAME", help="print the grid of an example: the first, or the one named")
    add("--plan", action="store_true", help="report how much work it is and exit; no weights are loaded")
    add(
        "--rate",
        metavar="X|XTFLOP/s|measure",
        help="with --plan: interpretations or FLOPs per second of a device, for the hours; measure: load and try",
    )
    add("--devices", type=int, metavar="N", help="with --plan: how many share the work (default: 1)")
    arguments = parse_with_maps(parser, argv)
    if arguments.examples is None and arguments.vectors is None:
        arguments.examples = DEMO_EXAMPLES["default"]
    if not arguments.plan and (arguments.rate or arguments.devices is not None):
        parser.error("--rate and --devices go with --plan")
    return arguments


def assist(argv: Sequence[str]) -> int:
    """What the other processes of a launch do. Rank 0 reports what concerns all of them."""
    warnings.showwarning = lambda *_, **__: None
    try:
        prepare_environment()
        with contextlib.redirect_stderr(io.StringIO()):
            arguments = parse(argv)
        from transformers.interpretation.models.loading import ModelError
        from transformers.interpretation.runs import runner
        from transformers.interpretation.runs.coordination import joined
        from transformers.interpretation.runs.manifest import OutputError
        from transformers.interpretation.runs.preparation import RequestError, prepare
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # those of loading, too
        with joined(arguments.device) as ranks:
            if (published := ranks.await_published("prepared")) is None:
                return 0
            began = datetime.fromisoformat(published["began"])
            try:
                runner.assist(prepare(request_of(arguments, published["model"]), ranks, began=began))
            except (RequestError, ModelError, OutputError) as error:
                ranks.fail(str(error))
                sys.exit(fail(f"{ranks.name}: {error}", STOPPED))
        return 0
    except (SystemExit, ModuleNotFoundError) as error:
        time.sleep(REFUSAL_SECONDS)
        return getattr(error, "code", REFUSED)
    except KeyboardInterrupt:
        return INTERRUPTED


def interpret_examples(arguments: argparse.Namespace, command: str, ranks: Ranks | None) -> int:
    """Check, load, run, report. `command` is what to repeat after an interruption."""
    from transformers.interpretation.runs.csv_writer import clear_leftovers
    from transformers.interpretation.runs.manifest import OutputError
    from transformers.interpretation.runs.preparation import RequestError, check, prepare

    display = Display(arguments.report, arguments.no_report, arguments.show, arguments.output)
    planning = Planning(arguments.plan, arguments.rate, arguments.devices)
    if ranks is None and started_alone():
        print("accelerate has started one process; without several GPUs, more need --multi_gpu", file=sys.stderr)
    request = request_of(arguments, arguments.model or "")
    try:
        display.check(inputs_of(request))
        planning.check()
        checked = check(request)
        if arguments.model is None:  # only now: to make the embedded model takes a while
            request = replace(request, model=embedded_model())
        prepared = prepare(request, ranks, checked=checked)
        display.check_name(prepared.plan.example_names)
    except RequestError as error:
        return fail(error, REFUSED)
    if planning.wanted:
        return planning.report(prepared)
    if prepared.is_complete:
        clear_leftovers(request.output)
        rows = prepared.found.position.rows
        try:
            where = display.present(prepared, again=True)
        except OutputError as error:
            return fail(f"{error}; fix it and repeat: {command}", STOPPED)
        print(f"{where} is complete: {rows:,} interpretations (--overwrite starts over)")
        return 0
    if ranks is not None:
        ranks.publish("prepared", {"model": request.model, "began": prepared.began.isoformat()})
    return carry_out(prepared, display, command)


def inputs_of(request: RunRequest) -> dict[str, Path | None]:
    """The files that a run reads, by what they are called."""
    given = {"the examples": request.examples, "the maps": request.mapping}
    if request.vectors is not None:
        inside = request.vectors.iterdir() if request.vectors.is_dir() else [request.vectors]
        given |= {f"the vectors {path}": path for path in inside}
    given |= {} if request.names is None else {"the names": Path(request.names)}
    named = {f"the interpretation prompt {prompt}": prompt for prompt in request.interpretation_prompts}
    named |= {} if request.device_map is None else {"the device map": request.device_map}
    named |= {} if request.reader is None else {"the reader": request.reader}
    models = files_of_models(request.model or None, request.source_model, request.reader_adapter, request.reader)
    return given | models | {name: Path(path) for name, path in named.items()}


def started_alone() -> bool:
    """Whether `accelerate launch` was asked for several processes and has started one, as it does without GPUs."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "RANK" not in os.environ


def carry_out(prepared: Prepared, display: Display, command: str) -> int:
    """Run, with a progress bar; then one line about it."""
    from tqdm import tqdm
    from transformers.interpretation.engine.batch_size import is_out_of_memory
    from transformers.interpretation.models.loading import ModelError
    from transformers.interpretation.runs.coordination import RankError
    from transformers.interpretation.runs.manifest import OutputError
    from transformers.interpretation.runs.runner import run
    from transformers.interpretation.vectors.vector_file import VectorsError

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
        return fail(error, REFUSED)
    except (OutputError, RankError, VectorsError) as error:
        return fail(f"{error}; to resume, fix it and repeat: {command}", STOPPED)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        safe = f"{rows:,} interpretations are safe for {prepared.request.output}"
        return fail(f"out of memory even with one interpretation at a time; {safe}", STOPPED)
    except KeyboardInterrupt:
        safe = f"{rows:,} interpretations are safe for {prepared.request.output}"
        return fail(f"interrupted; {safe}; to resume, repeat: {command}", INTERRUPTED)
    print(summary(progress, start.rows, seconds, where))
    return 0


def summary(progress: Progress, before: int, seconds: float, where: str) -> str:
    """How many interpretations, how fast, and where they are. `before`: rows of earlier runs."""
    failed = f", {progress.failed:,} of them failed (see the column status)" if progress.failed else ""
    earlier = f" ({before:,} from an earlier run)" if before else ""
    rate = f"{(progress.rows - before) / seconds:,.1f}/s" if seconds > 0 else "at once"
    return f"{progress.rows:,} interpretations{earlier}{failed} in {seconds:,.1f} s ({rate}): {where}"


if __name__ == "__main__":
    sys.exit(main())
