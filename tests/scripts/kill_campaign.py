"""Run the script in children and kill them at random moments; ask whether what they leave behind is whole.

    kill_campaign.py SCRIPT FOLDER ARGUMENT ...

Children are forked from here with torch imported and the model loaded, so that their time goes into chunks and writing.
FOLDER gets the outputs. Prints one line of JSON: how often children were killed and interrupted, how often a finished
table had other bytes than an uninterrupted run's, how often an interrupted one had a torn row, and its wrong statuses.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from forked_script import fork, load_script
from transformers.interpretation import read_csv

ROUNDS = 6
KILLS = 3


def main(script_path: str, folder: Path, arguments: list[str]) -> None:
    script = load_script(script_path, arguments)
    parse = script.parse

    def parse_interruptibly(argv: list[str]) -> object:
        """An interrupt between the fork and here would be the campaign's to handle, not the program's."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return parse(argv)

    script.parse = parse_interruptibly

    def child(output: Path) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        process = fork(lambda: script.main([*arguments, "--output", str(output)]), os.devnull)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return process

    began = time.monotonic()
    whole = folder / "whole.csv"
    assert os.waitpid(child(whole), 0)[1] == 0
    duration = time.monotonic() - began
    random.seed(0)
    counts = {"killed": 0, "interrupted": 0, "different": 0, "torn": 0, "wrong status": []}
    for number in range(ROUNDS):
        output = folder / f"{number}.csv"
        interrupt = number % 3 == 0
        stopped = 0
        while stopped < KILLS:
            process = child(output)
            time.sleep(random.uniform(0.0, 0.5) * duration)
            os.kill(process, signal.SIGINT if interrupt else signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            stopped += status != 0
            code = os.waitstatus_to_exitcode(status)
            counts["wrong status"] += [code] if interrupt and code not in (0, 130) else []
            counts["torn"] += interrupt and output.exists() and output.stat().st_size > 0 and not readable(output)
            if status == 0:  # too late
                counts["different"] += output.read_bytes() != whole.read_bytes()
                output.unlink()
        counts["interrupted" if interrupt else "killed"] += stopped
        counts["different"] += os.waitpid(child(output), 0)[1] != 0 or output.read_bytes() != whole.read_bytes()
    print(json.dumps(counts))


def readable(output: Path) -> bool:
    try:
        read_csv(output)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
