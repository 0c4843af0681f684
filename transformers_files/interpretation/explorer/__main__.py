"""`python -m transformers.interpretation.explorer --model NAME`: the live page of one model."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..mapping.lenses import Lens
from ..models.device_map import Placement
from ..models.loading import ModelError, load_weights, read_outline, resolve_device, resolve_dtype
from ..runs.request import RunRequest
from .server import LOOPBACK, Explorer, check_packages

MODEL = ("model", "dtype", "device", "device_map", "max_memory", "trust_remote_code")
INTERPRETED = ("reader", "reader_adapter", "mapping", "layers")
"""Options of the main program, about the model and about what it says."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on stderr that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        check_packages()
        outline = read_outline(options.model, trust_remote_code=options.trust_remote_code)
        device = resolve_device(options.device)
        placement = None
        if options.device_map is not None:
            placement = Placement.read(options.device_map, max_memory=options.max_memory).fitted(outline.skeleton)
        dtype = resolve_dtype(options.dtype, device)
        model = load_weights(outline, dtype=dtype, device=device, placement=placement)
        lenses = {Path(path).stem: Lens.load(path) for path in options.lens}
        where = {"host": options.host, "port": options.port, "names": options.allowed_host}
        how = {name: getattr(options, name) for name in INTERPRETED}
        explorer = Explorer(model, outline.tokenizer, name=outline.name, lenses=lenses, **how, **where)
    except (ModelError, ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stops: list[int] = []

    def stop(number: int, _: object) -> None:
        """Note it; a second one interrupts."""
        signal.signal(number, signal.default_int_handler)
        stops.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print(f"{outline.name} is explored at {explorer.url}  (Ctrl-C stops)", flush=True)
    try:
        explorer.wait(until=lambda: bool(stops))
    finally:
        explorer.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m transformers.interpretation.explorer",
        description="A live page: type a prompt, and read what its hidden embeddings say.",
    )
    known = {field.name: field for field in fields(RunRequest)}
    for name in (*MODEL, *INTERPRETED):
        given: dict[str, Any] = dict(known[name].metadata["option"])
        shown = given.pop("shown")
        flag = given.pop("flag", f"--{name.replace('_', '-')}")
        if shown is False:
            given["action"] = "store_true"
        if name == "model":
            given["required"] = True
        else:
            given["default"] = known[name].default
        parser.add_argument(flag, **given)
    parser.add_argument(
        "--lens", action="append", default=[], metavar="FILE", help="a lens of fit_lens.py beside the logit lens"
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at; others than %(default)s need a token")
    parser.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME", help="another name that the server goes by"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: a free one (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
