"""Run the script as several ranks and kill them at random moments; ask whether what they leave behind is whole.

    rank_campaign.py SCRIPT FOLDER ARGUMENT ...

Ranks are forked from here with torch imported and both models loaded, so that their time goes into chunks and writing;
this process is their launcher. Every launch has another number of ranks, and kills one of them or all. FOLDER gets the
outputs. Prints one line of JSON: how many launches ended before they were complete, how many tables were made, how
many of those had other bytes than one process's; then what ranks wrote to stderr when their arguments were wrong in
two ways, when they were interrupted, and when rank 1 raised an error, with their exit statuses in the order of ending.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import torch
from forked_script import FAILED, fork, load_script
from transformers.interpretation.runs import coordination as ranks
from transformers.interpretation.runs import runner as work

TABLES = (".csv", ".parquet", ".csv")
SIZES = (2, 3, 1)


def main(script_path: str, folder: Path, arguments: list[str]) -> None:
    ranks.POLL_SECONDS = 0.02
    script = load_script(script_path, arguments)
    random.seed(0)

    def run_rank(rank: int, common: dict[str, object], options: list[str]) -> int:
        own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_USE_AGENT_STORE": True}
        environment = common | own if common["WORLD_SIZE"] != 1 else common
        os.environ.update({key: str(value) for key, value in environment.items()})
        try:
            return script.main([*arguments, *options])
        except SystemExit as error:
            return error.code
        except BaseException:
            traceback.print_exc()
            return FAILED

    def launch(output: Path, size: int, *more: str) -> tuple[list[int], torch.distributed.TCPStore]:
        """Processes, and the store that a launcher holds for them. What they say goes to a file beside the output."""
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
        options = [*more, "--output", str(output)]
        processes = [fork(partial(run_rank, rank, common, options), folder / "said") for rank in range(size)]
        return processes, store

    def wait(processes: list[int], *, interrupted: bool = False) -> list[int]:
        """The statuses in the order of ending; as soon as one is not 0, the rest is told to end, as launchers do.

        Interrupted ones get the time to end by themselves, from launchers too.
        """
        statuses = []
        while processes:
            ended, status = os.wait()
            processes.remove(ended)
            statuses.append(os.waitstatus_to_exitcode(status))
            if status and not interrupted and not any(statuses[:-1]):
                time.sleep(0.2)
                for process in processes:
                    os.kill(process, signal.SIGTERM)
        return statuses

    def run(output: Path, size: int, after: float | None = None) -> bool:
        """Whether the launch ended well. `after` so many seconds one of its ranks, or all, are killed."""
        processes, _store = launch(output, size)
        if after is not None:
            time.sleep(after)
            for process in random.choice([processes, [random.choice(processes)]]):
                os.kill(process, signal.SIGKILL)
        return not any(wait(processes))

    def said(name: str, *more: str, interrupt: bool = False) -> str:
        (folder / "said").unlink(missing_ok=True)
        processes, _store = launch(folder / f"{name}.csv", 2, *more)
        if interrupt:
            while not list(folder.glob(f"{name}.csv.shards/*")):
                time.sleep(0.05)
            for process in processes:
                os.kill(process, signal.SIGINT)
        statuses = wait(processes, interrupted=interrupt)
        return f"{(folder / 'said').read_text()}{statuses}"

    began = time.monotonic()
    assert run(folder / "whole.csv", 1)
    duration = time.monotonic() - began
    assert run(folder / "whole.parquet", 1)
    counts = {"stopped": 0, "tables": 0, "different": 0}
    for number, form in enumerate(TABLES):
        output = folder / f"{number}{form}"
        sizes = itertools.cycle(SIZES[number:] + SIZES[:number])
        for _ in range(3):
            counts["stopped"] += not run(output, next(sizes), random.uniform(0.2, 0.9) * duration)
        assert run(output, next(sizes))
        counts["tables"] += 1
        counts["different"] += output.read_bytes() != (folder / f"whole{form}").read_bytes()
        left = {path.name for path in folder.iterdir() if path.name.startswith(output.name)}
        assert left == {output.name, f"{output.name}.manifest.json"}, left
    told = {"refused": said("refused", "--layers", "99"), "usage": said("usage", "--no-such-option")}
    told["interrupted"] = said("interrupted", interrupt=True)
    piece = work.ChunkJob.piece

    def failing(job: work.ChunkJob, chunk: int, encode: object) -> object:
        if os.environ.get("RANK") == "1":
            raise ValueError("boom")
        return piece(job, chunk, encode)

    work.ChunkJob.piece = failing
    told["raised"] = said("raised")
    print(json.dumps(counts | told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
