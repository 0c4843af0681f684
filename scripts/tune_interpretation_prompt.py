"""Find the interpretation prompt and settings that recover most answers on your model; the prompt goes to a JSON file.

    python scripts/tune_interpretation_prompt.py --model meta-llama/Llama-3.1-8B-Instruct --output tuned.json
    python scripts/evaluate_interpretations.py --model … --interpretation-prompt tuned.json …   # as printed at its end

Wording, strength, placeholders, insert layer, mode, guidance, deep gain and stop are varied one at a time, on the
tuning half of the facts alone. What it finds must be judged on the held-out half, once, by
evaluate_interpretations.py.
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

from common.evaluation_recovery import DEPTHS
from common.measured_model import add_measuring_options, load
from common.options import add_options, parse_options
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.measures import Candidate, Trial


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, tune, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_measuring_options(parser)
    add_options(
        parser,
        *("layers", "max_new_tokens", "output"),
        layers={"shown": "every second one, from 20 %% to 80 %% of depth"},
        max_new_tokens={"default": 8},
        output={"default": Path("tuned.json"), "metavar": "FILE.json", "help": "the prompt that was found"},
    )
    most = "evenly out of the known ones (default: 60)"
    parser.add_argument("--max-facts", type=int, default=60, metavar="N", help=most)
    return parse_options(parser, argv)


def tune(arguments: argparse.Namespace) -> int:
    """Check, load, search, write."""
    from transformers.interpretation.measures import Search, known_facts, of_half, read_facts
    from transformers.interpretation.prompts.index_selection import Selection

    try:
        outputs = {"the prompt": arguments.output, "the trials": trials_of(arguments.output)}
        check_files(outputs, {"the facts": arguments.facts} | files_of_models(arguments.model))
        facts = of_half(read_facts(arguments.facts), "tuning")
        loaded = load(arguments)
        layers = Selection.of(arguments.layers or every_second(loaded.n_layers)).resolve(loaded.n_layers + 1)
        known = evenly(known_facts(loaded.model, loaded.tokenizer, facts), arguments.max_facts)
        search = Search(
            loaded.model,
            loaded.tokenizer,
            known,
            layers,
            max_new_tokens=arguments.max_new_tokens,
            batch_size=arguments.batch_size,
        )
    except ValueError as error:
        return fail(error, REFUSED)
    print(f"{len(known)} known facts of the tuning half, layers {', '.join(map(str, layers))}")
    began = time.monotonic()
    for trial in search.run(loaded.deepest_insert_layer):
        print(f"{described(trial.candidate):<106}{trial.net}", flush=True)
    write(arguments.output, search.best(), list(search.trials.values()))
    best = search.best().candidate
    print(
        f"best in {time.monotonic() - began:,.0f} s: {described(best)}, one interpretation per reported one\n"
        f"{arguments.output}: use it with --interpretation-prompt {arguments.output} "
        f"--insert-layer {best.insert_layer} --replacing-mode {best.replacing_mode} "
        f"--overlay-strength {best.strength:g} --guidance {best.guidance:g} --deep-gain {best.deep_gain:g}"
    )
    return 0


def every_second(n_layers: int) -> range:
    """From the deepest layer that counts upwards, so that it is among them."""
    return range(int(DEPTHS[-1] * n_layers), n_layers // 5 - 1, -2)


def evenly(facts: Sequence, most: int) -> list:
    """At most so many, spread over the whole."""
    count = min(most, len(facts))
    return [facts[index * len(facts) // count] for index in range(count)]


def described(candidate: Candidate) -> str:
    return (
        f"{candidate.name}, {candidate.placeholders} at layer {candidate.insert_layer}, {candidate.replacing_mode} "
        f"{candidate.strength:g}, guidance {candidate.guidance:g}, deep gain {candidate.deep_gain:g}"
        f"{', to the line break' if candidate.stop else ''}"
    )


def write(output: Path, best: Trial, trials: Sequence[Trial]) -> None:
    """The prompt, and next to it everything that was tried."""
    output.parent.mkdir(parents=True, exist_ok=True)
    spec = best.candidate.spec()
    prompt = {"name": output.stem, "sequence": list(spec.sequence)} | ({"stop": spec.stop} if spec.stop else {})
    output.write_text(json.dumps(prompt, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tried = json.dumps([asdict(trial) for trial in trials], indent=1, ensure_ascii=False)
    trials_of(output).write_text(tried + "\n", encoding="utf-8")


def trials_of(output: Path) -> Path:
    """Where everything that was tried is written."""
    return output.with_suffix(".trials.json")


if __name__ == "__main__":
    sys.exit(main())
