"""The installer's errors and its progress remarks."""

from __future__ import annotations

import errno
import sys

COMMAND = "python install_patch.py"


class PatchError(Exception):
    """What is wrong, where, and the remedy, in one line."""


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        remedy = " (run this as the owner of the package)" if error.errno in (errno.EACCES, errno.EPERM) else ""
        return (f"{error.filename}: {error.strerror}" if error.filename else error.strerror) + remedy
    return str(error) or type(error).__name__


def say(text: str) -> None:
    """A remark: not a result, so not for stdout."""
    print(f"install_patch.py: {text}", file=sys.stderr)
