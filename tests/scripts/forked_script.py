"""The script as campaigns run it: in children that are forked with torch imported and its models loaded."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from tqdm import tqdm
from transformers.interpretation.models.loading import load_weights
from transformers.interpretation.runs import preparation
from transformers.interpretation.runs import runner as work

CHUNK_CELLS = 8
"""Many chunks of a small table."""
FAILED = 99
"""The status of a child that raised an error."""


def load_script(path: str, arguments: list[str]) -> ModuleType:
    """The script's module; whoever calls it in this process or a child finds the models of the arguments loaded."""
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # its thread would hold a lock over a fork, for good in the child
    preparation.read_outline = functools.cache(preparation.read_outline)
    weights = functools.cache(functools.partial(load_weights, dtype=torch.float32, device="cpu"))
    work.load_weights = lambda outline, **_: weights(outline)
    for option in {"--model", "--source-model"} & set(arguments):
        weights(preparation.read_outline(arguments[arguments.index(option) + 1], trust_remote_code=False))
    sys.path.insert(0, str(Path(path).parent))
    script = importlib.import_module(Path(path).stem)
    request_of = script.request_of
    script.request_of = lambda *given: replace(request_of(*given), chunk_cells=CHUNK_CELLS)
    return script


def fork(run: Callable[[], int], said: str | Path) -> int:
    """The id of a child that ends with the status that `run` returns; what it says is added to the file `said`."""
    process = os.fork()
    if process:
        return process
    status = FAILED
    with contextlib.suppress(BaseException):
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
    os._exit(status)
