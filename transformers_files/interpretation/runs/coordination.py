"""Several processes, on one machine or many, that share the work of a run.

    with joined(device="auto") as ranks:             # None in a process that was started alone
        …

`accelerate launch` starts the processes, and accelerate assigns their devices. Of torch.distributed only the key/value
store is used: rank 0 publishes which chunks are missing, and every rank claims the next one from a counter until none
is left. Work goes to whichever rank is free, no rank waits for another in between, and a rank that dies delays no
other: the chunks that it had claimed are computed by the next run.

On one machine the launcher ends all processes as soon as one has died. Launchers on other machines do not notice, so
every rank increments a heartbeat counter of its own, and rank 0 stops the run when one of them stands still.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch

HEARTBEAT_SECONDS = 5.0
TIMEOUT_SECONDS = 90.0
"""A rank without a heartbeat for so long is taken for dead. Loading weights from a slow disk does not stop it."""
POLL_SECONDS = 0.5
_STORE_TIMEOUT = timedelta(minutes=5)
_NO_MORE = 2**40  # more than the chunks of any plan


class RankError(Exception):
    """Another process of the run has failed."""


class Ranks:
    """This process as one of several.

    store: shared by all of them; any `torch.distributed.Store`.
    local_size: how many of them run on this machine.
    """

    def __init__(self, rank: int, size: int, device: str, store: Any, *, local_size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.local_size = local_size
        self._store = store
        self._heard: dict[int, tuple[int, float]] = {}
        self._checked_at = time.monotonic()
        self._left = threading.Event()
        if not self.leads:
            threading.Thread(target=self._beat, daemon=True).start()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which checks the request, writes the output and reports."""
        return self.rank == 0

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"

    def publish(self, key: str, content: Any) -> None:
        """On rank 0: make a JSON value known to all."""
        self._store.set(key, json.dumps(content))

    def await_published(self, key: str) -> Any:
        """What rank 0 publishes; None if it ends without publishing it."""
        while not self._store.check([key]):
            if self._store.check(["over"]):
                return None
            time.sleep(POLL_SECONDS)
        return json.loads(self._store.get(key))

    def claims(self, chunks: Sequence[int]) -> Iterator[int]:
        """Chunks for this rank, one after the other; every rank gives the same list. Raises RankError."""
        while (number := self._store.add("claimed", 1) - 1) < len(chunks):
            self.check()
            yield chunks[number]
        self.check()

    def add(self, **counts: int) -> None:
        """Add to the totals of this run."""
        for name, count in counts.items():
            self._store.add(f"done/{name}", count)

    def total(self, name: str) -> int:
        """The sum over all ranks."""
        return self._store.add(f"done/{name}", 0)

    def fail(self, reason: str) -> None:
        """Make all ranks stop after their current chunk. The first reason is kept."""
        self._left.set()
        with contextlib.suppress(RuntimeError):  # the store may be what failed
            self._store.add("claimed", _NO_MORE)
            if self._store.add("failures", 1) == 1:
                self.publish("failed", f"{self.name}: {reason}")

    def check(self) -> None:
        """On rank 0: raise RankError if another rank has failed or its heartbeat has stopped."""
        if not self.leads or time.monotonic() - self._checked_at < POLL_SECONDS:
            return
        self._checked_at = time.monotonic()
        if self._store.check(["failed"]):
            raise RankError(json.loads(self._store.get("failed")))
        for rank in range(1, self.size):
            heartbeat = self._store.add(f"heartbeat/{rank}", 0)
            before, since = self._heard.get(rank, (None, 0.0))
            if heartbeat != before:
                self._heard[rank] = (heartbeat, self._checked_at)
            elif self._checked_at - since > TIMEOUT_SECONDS:
                raise RankError(f"no heartbeat from rank {rank} for {TIMEOUT_SECONDS:.0f} s")

    def leave(self) -> None:
        """Rank 0 releases the others; they wait for it, because the launcher on its machine holds the store."""
        if self.leads:
            self._store.add("claimed", _NO_MORE)
            self.publish("over", None)
        else:
            self.await_published("over")
        self._left.set()

    def _beat(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone, and nobody reads it
            while not self._left.wait(HEARTBEAT_SECONDS):
                self._store.add(f"heartbeat/{self.rank}", 1)


def is_launched() -> bool:
    """Whether this process is one of several, by the environment that launchers set."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks | None]:
    """This process as one of those that were started together; None if it was started alone.

    device: as the user asked for it; with "auto" each process of a machine gets its own.
    """
    if not is_launched():
        yield None
        return
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    own = str(state.device) if device == "auto" and state.device.type != "cpu" else device
    # All that is used of the process group. There is no public name for it.
    store = torch.distributed.distributed_c10d._get_default_store()
    store.set_timeout(_STORE_TIMEOUT)
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    ranks = Ranks(state.process_index, state.num_processes, own, store, local_size=local_size)
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(f"{type(error).__name__}: {error}")
        raise
    else:
        ranks.leave()
    finally:
        torch.distributed.destroy_process_group()
