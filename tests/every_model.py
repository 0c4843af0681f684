"""Every causal class of the installed library against plain hooks (`model_checks`).

    python tests/every_model.py                           # all of them, a line each, with what went wrong
    python tests/every_model.py Qwen3NextForCausalLM      # some
    python tests/every_model.py --store                   # all, for the table of `every_model_table`

Each class is examined in its own process, so that one that crashes or hangs does not stop the others. Status 1 if any
is different or crashed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from every_model_table import store
from model_checks import CHECKS, examine

SECONDS = 90
"""For one class."""


def in_a_process(class_name: str) -> dict[str, Any]:
    """`examine` in a fork of this process, which has imported what all need, within a time limit."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        with (
            torch.no_grad(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.redirect_stdout(nowhere),
        ):
            record = examine(class_name)
        os.write(writable, json.dumps(record).encode())
        os._exit(0)
    os.close(writable)
    text, end = b"", time.monotonic() + SECONDS
    while select.select([readable], [], [], max(0.0, end - time.monotonic()))[0]:
        if not (part := os.read(readable, 1 << 16)):
            break
        text += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(readable)
    status = os.waitpid(child, 0)[1]
    if status or not text:
        return {"class": class_name, "remarks": [], "outcome": "crashed", "why": f"ended with status {status}"}
    return json.loads(text)


# ---- all of them


def causal_classes() -> list[str]:
    """What the installed library's automatic class for causal models makes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(
        {
            name
            for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
            for name in ([names] if isinstance(names, str) else names)
        }
    )


def line(record: dict[str, Any]) -> str:
    """A record for reading."""
    text = f"{record['class']:<44} {record['outcome']:<10}"
    reasons = [record["why"]] if "why" in record else []
    for name in CHECKS:
        if why := record.get(f"{name}: why"):
            reasons.append(f"{name} {record[name]}: {why}")
    return "\n      ".join([text, *dict.fromkeys(reasons), *record["remarks"]])


def main() -> int:
    """Sweep, print, write; 1 if anything differs or crashes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("classes", nargs="*", help="names of model classes; without any: all of them")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--store", action="store_true", help="put the outcomes of all classes into the table's data")
    arguments = parser.parse_args()
    if arguments.store and arguments.classes:
        parser.error("--store is for all classes")

    torch.set_num_threads(1)
    import transformers.interpretation  # what every process would import for itself
    from transformers import LlamaForCausalLM
    from transformers.interpretation.engine import decode  # noqa: F401

    del LlamaForCausalLM
    transformers.logging.set_verbosity_error()
    records = []
    for name in arguments.classes or causal_classes():
        records.append(in_a_process(name))
        print(line(records[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if arguments.store:
        store(transformers.__version__, records)
    counts = Counter(record["outcome"] for record in records)
    print(dict(counts))
    return int(counts["different"] + counts["crashed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
