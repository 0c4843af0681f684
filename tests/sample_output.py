"""A run of four chunks, as the tests of outputs write it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from transformers.interpretation.results.csv_table import csv_rows
from transformers.interpretation.results.record import OK, Record
from transformers.interpretation.runs.manifest import Manifest
from transformers.interpretation.runs.shards import Piece

SETTINGS = {"layers": "all", "versions": {"torch": "2", "transformers": "5"}}
MANIFEST = Manifest(SETTINGS, {"model": "m", "threads": 2}, {"batch_size": 4, "chunk_cells": 3})
CHUNKS = [
    [
        Record(
            name=f"x_{chunk}",
            category="x",
            prompt='two\nlines, "quoted"',
            prompt_output="",
            prompt_token_list=("a", "b"),
            layer_idx=chunk,
            token_idx=row,
            current_token="é",
            repeat_prompt="r",
            repeat_prompt_name="r",
            interpretation=(1,) if row else (),
            interpretation_text="=1" * 30,
            interpretation_weights=(0.5,) if row else (),
            interpretation_prob=(0.25,) if row else (),
            token_source="prompt",
            insert_layer=1,
            status="ok" if row else "bad",
        )
        for row in range(3)
    ]
    for chunk in range(4)
]
RECORDS = [record for chunk in CHUNKS for record in chunk]


def piece_of(number, records):
    return Piece(number, len(records), sum(record.status != OK for record in records), csv_rows(records).encode())


def kill_until_done(write: Callable[[], object], longer: float) -> int:
    """Write in a child and kill it after a while, nothing at first and each time that many seconds `longer`; the next
    child goes on. How many were killed before one came to its end."""
    delay, kills = 0.0, 0
    while True:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                write()
                os._exit(0)
            os._exit(1)
        with contextlib.suppress(ChildProcessError):
            signal.sigtimedwait([signal.SIGCHLD], delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1
        delay += longer
