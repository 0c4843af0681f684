"""Maps say what they were fitted for: a run takes it from them where its options do not say otherwise."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from common.options import parse_options


def parse_with_maps(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with what `--mapping` was fitted for in place of the defaults.

    A line on stderr says what was taken from the file, another where the options differ from it. A file that cannot be
    read changes nothing: it is refused later, with everything else that is wrong.
    """
    arguments = parse_options(parser, argv)
    no_defaults = argparse.Namespace(**dict.fromkeys(vars(arguments)))
    given = {name: value for name, value in vars(parse_options(parser, argv, no_defaults)).items() if value is not None}
    taken, differing = [], []
    for name, value in _fitted_for(arguments).items():
        if name not in given:
            setattr(arguments, name, value)
            taken.append(f"{_flag(name)} {_shown(value)}")
        elif _shown(given[name]) != _shown(value):
            differing.append(f"{_flag(name)} {_shown(value)}, not {_shown(given[name])}")
    if taken:
        print(f"taken from mapping {arguments.mapping}: {', '.join(taken)}", file=sys.stderr)
    if differing:
        print(f"mapping {arguments.mapping} was fitted for {'; '.join(differing)}", file=sys.stderr)
    return arguments


def _fitted_for(arguments: argparse.Namespace) -> dict[str, Any]:
    """By the names of the program's arguments."""
    if arguments.mapping is None:
        return {}
    from transformers.interpretation.mapping.affine import MappingError
    from transformers.interpretation.mapping.fitted_for import read_fitted_for

    try:
        fitted = read_fitted_for(arguments.mapping)
    except MappingError:
        return {}
    if "interpretation_prompt" in vars(arguments):
        return fitted
    several = {"interpretation_prompt": "interpretation_prompts"}  # a run takes more than one
    return {several.get(name, name): [value] if name in several else value for name, value in fitted.items()}


def _flag(name: str) -> str:
    return "--interpretation-prompt" if name == "interpretation_prompts" else f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return ", ".join(f"{one:g}" if isinstance(one, (int, float)) else str(one) for one in values)
