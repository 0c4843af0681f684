"""Options of the programs: most are fields of a run's request, declared there with their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.interpretation.runs.request import RunRequest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DEMO_EXAMPLES = {"default": EXAMPLES / "demo.json", "shown": "the demo's"}
MODEL = ("model", "dtype", "device", "device_map", "trust_remote_code")
"""Which model is run, and on what."""
ONE_PROMPT = {
    "dest": "interpretation_prompt",
    "action": "store",
    "default": "describe",
    "help": "a built-in name or a file",
}
"""For programs that take one interpretation prompt."""


def request_fields() -> dict[str, Field]:
    """The fields of a request that are options, by name."""
    # Not above: `program` reports a missing patch.
    from transformers.interpretation.runs.request import RunRequest

    return {field.name: field for field in fields(RunRequest) if "option" in field.metadata}


def settings_names() -> tuple[str, ...]:
    """The fields of a request that say how vectors are interpreted, but not how samples are drawn."""
    from transformers.interpretation.engine.settings import InterpretationSettings

    return tuple(field.name for field in fields(InterpretationSettings) if field.name in request_fields())


def add_options(parser: argparse.ArgumentParser, *names: str, **changes: dict[str, Any]) -> None:
    """Options for these fields of a `RunRequest`; changes: other arguments of `add_argument`, by field."""
    known = request_fields()
    for name in names:
        change = changes.get(name, {})
        default = None if known[name].default is MISSING else known[name].default
        given = {"dest": name, "default": default, **known[name].metadata["option"]}
        given |= ({"shown": ""} if "default" in change else {}) | change
        flag, shown = given.pop("flag", f"--{name.replace('_', '-')}"), given.pop("shown") or given["default"]
        if shown is False:
            given["action"] = "store_true"
        elif shown is not None:
            given["help"] += f" (default: {', '.join(shown) if isinstance(shown, tuple) else shown})"
        if isinstance(given["default"], tuple):  # of an option that may be repeated: argparse would add to it
            given["default"] = None
        parser.add_argument(flag, **given)


def parse_options(
    parser: argparse.ArgumentParser, argv: Sequence[str], namespace: argparse.Namespace | None = None
) -> argparse.Namespace:
    """The arguments; `--layers -5:` is read as `--layers=-5:`, where argparse takes the second word for an option.

    namespace: what it has stands in place of defaults.
    """
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in ("--layers", "--insert-layers", "--tokens") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return parser.parse_args(joined, namespace)


def request_of(arguments: argparse.Namespace, model: str) -> RunRequest:
    """What the arguments ask for; whatever is no field of a request is left out."""
    from transformers.interpretation.runs.request import RunRequest

    given = {name: vars(arguments)[name] for name in request_fields() if vars(arguments).get(name) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return RunRequest(**given | {"model": model})
