"""The soak campaign runs, and reports what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parent / "soak.py"
ONLY_THREADS = f"""
import sys
sys.path.insert(0, {str(SOAK.parent)!r})
import soak
from transformers.interpretation.models import thread_hooks
soak.Tables = lambda workplace, dice: soak.Threads(dice)
"""
HOOKS_OF_ALL_THREADS = "thread_hooks._Mine.active = lambda self: self._thread is not None\n"


@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_round(seed):
    """One is of threads, the other of a table."""
    done = subprocess.run([sys.executable, "-W", "ignore", SOAK, "0", seed], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1 rounds, 0 wrong\n")


def test_a_fault_is_found():
    code = f"{ONLY_THREADS}{HOOKS_OF_ALL_THREADS}sys.exit(soak.main(0, 0))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1 rounds, 1 wrong", done.stderr
    assert done.returncode == 1
