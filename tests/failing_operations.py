"""Something that happens at a chosen file operation of this process: it dies, or the operation fails."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Callable

EVENTS = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
Hook = Callable[[], None]


def at_every_operation(hook: Hook) -> None:
    """Call `hook` before every file operation of this process that changes something, and in the middle of writes."""

    def audit(event: str, arguments: tuple) -> None:
        if event in EVENTS or (event == "open" and arguments[2] & WRITING):
            hook()

    write = os.write

    def torn_write(descriptor: int, content: memoryview) -> int:
        half = write(descriptor, content[: len(content) // 2]) if len(content) > 1 else 0
        hook()
        return half + write(descriptor, content[half:])

    os.write, os.fsync = torn_write, lambda descriptor: hook()  # a kill loses nothing that is written: no need to flush
    sys.addaudithook(audit)


def count_down(number: int, act: Callable[[], None]) -> Hook:
    """A hook that acts at the given operation, counted from 1, and at all later ones."""
    left = [number]

    def hook() -> None:
        left[0] -= 1
        if left[0] <= 0:
            act()

    return hook


def kill() -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(code: int, times: int, reached: mmap.mmap) -> Callable[[], None]:
    """Let that many operations fail, and leave a note to the parent process that the first of them was reached."""
    left = [times]

    def act() -> None:
        reached[0] = 1
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code), "FILE")

    return act
