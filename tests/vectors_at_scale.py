"""Many vectors through the main program, with a tiny model: killed and resumed by one and two ranks; peak memory.

    python tests/vectors_at_scale.py                       # 100,000 vectors: killed, resumed, compared byte for byte
    python tests/vectors_at_scale.py --memory              # peak memory of 100,000 and 1,000,000 vectors
    python tests/vectors_at_scale.py --vectors 5000

The file is of 16 numbers each, or with --memory of 4,096, which a map takes to the model's 16: 16 GB of holes.
Exit status 1 if tables differ, or if peaks differ by more than 5 %.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY
from transformers.interpretation import AffineMap

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "get_interpretations_from_examples.py"
HIDDEN, WIDE = 16, 4096
KILLS = 4
RUN = """
import os, runpy, sys
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
"""A program, after which its peak memory is said. What the system says of ended children counts their parent's, too."""
TOLERANCE = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's docstring; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000, metavar="N")
    parser.add_argument("--memory", action="store_true", help="peak memory of N and 10 N vectors in place of killing")
    options = parser.parse_args(arguments)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tiny = tiny_model(vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=2)
        write_tiny_folder(Path("model"), model=tiny)
        write_json(Path("short.json"), SHORT_PROMPT)
        return peaks(options.vectors) if options.memory else killed_and_resumed(options.vectors)


def killed_and_resumed(vectors: int) -> int:
    """Whether a table that was killed again and again is that of an uninterrupted run."""
    np.save("vectors.npy", np.random.default_rng(0).normal(size=(vectors, HIDDEN)).astype(np.float32))
    began = time.monotonic()
    wait(start(1, "whole.csv"))
    duration = time.monotonic() - began
    print(f"{vectors:,} vectors, one process: {duration:.0f} s, {Path('whole.csv').stat().st_size / 1e6:.0f} MB")
    for number in range(KILLS):
        process = start(1 + number % 2, "out.csv")
        time.sleep(random.uniform(0.2, 0.5) * duration)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        size = Path("out.csv").stat().st_size if Path("out.csv").exists() else 0
        print(f"killed with {1 + number % 2} ranks; {size / 1e6:.0f} MB in the table")
    print(wait(start(2, "out.csv")))
    same = Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    print("identical" if same else "DIFFERENT")
    return 0 if same else 1


def peaks(vectors: int) -> int:
    """Whether ten times as many vectors need more memory."""
    AffineMap(torch.ones(WIDE, HIDDEN), torch.arange(HIDDEN) / HIDDEN).save("map.safetensors")
    found = []
    for many in (vectors, 10 * vectors):
        file = np.lib.format.open_memmap("vectors.npy", mode="w+", dtype=np.float32, shape=(many, WIDE))
        file[:: max(1, many // 1000), 0] = 1
        del file
        *said, peak = wait(start(1, f"{many}.csv", "--mapping", "map.safetensors")).splitlines()
        peak = int(peak) / 1e3
        print(f"{many:,} vectors of {WIDE} numbers, {Path('vectors.npy').stat().st_size / 1e9:.1f} GB: {said[-1]}")
        print(f"peak memory {peak:,.1f} MB")
        found.append(peak)
    print(f"{found[1] / found[0]:.3f} times as much")
    return 0 if found[1] <= (1 + TOLERANCE) * found[0] else 1


def start(ranks: int, output: str, *more: str) -> subprocess.Popen:
    """The program in a process group of its own."""
    launcher = [sys.executable, "-c", RUN]
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(ranks)]
        launcher += ["--main_process_port", port]
    given = ["--model", "model", "--vectors", "vectors.npy", "--interpretation-prompt", "short.json", "--no-report"]
    given += [
        "--max-new-tokens",
        "2",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--batch-size",
        "256",
        "--insert-layer",
        "1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [*launcher, str(SCRIPT), *given, "--output", output, *more]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )


def wait(process: subprocess.Popen) -> str:
    """What it said. Raises RuntimeError unless it ended well."""
    said = process.communicate()[0].strip()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return said


if __name__ == "__main__":
    sys.exit(main())
