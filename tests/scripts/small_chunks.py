"""The script with chunks of a few cells, as a program for launchers. The environment may order a death:

DIE=1:2      rank 1 is killed (SIGKILL) when it has finished 2 chunks
DIE=all:2    so are all ranks of its machine and the launcher, by rank 0
RAISE=1:2    rank 1 raises an error instead
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import get_interpretations_from_examples as script
from transformers.interpretation.runs import work_queue as sharing
from transformers.interpretation.runs.shards import Shard

CHUNK_CELLS = 4


class Mortal(Shard):
    finished = 0

    def append(self, piece):
        super().append(piece)
        self.finished += 1
        rank = os.environ["RANK"]
        if os.environ.get("DIE") == f"{rank}:{self.finished}":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("RAISE") == f"{rank}:{self.finished}":
            raise ValueError("boom")
        if os.environ.get("DIE") == f"all:{self.finished}" and rank == "0":
            launcher = os.getppid()
            siblings = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
            for process in [launcher, *(int(sibling) for sibling in siblings if int(sibling) != os.getpid())]:
                os.kill(process, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    request_of = script.request_of
    script.request_of = lambda *given: replace(request_of(*given), chunk_cells=CHUNK_CELLS)
    sharing.Shard = Mortal
    sys.exit(script.main())
