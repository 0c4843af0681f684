"""Where a command may write: not over what it reads, nor twice at the same place, nor where nothing can be written.

    check_apart({"the table": output, "the report": page}, {"the examples": examples})

Raises OutputError; writes nothing.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from .manifest import OutputError

_LONGEST_NAME = 255
"""Bytes, where the file system does not say."""


def check_apart(outputs: Mapping[str, Path], inputs: Mapping[str, Path | None]) -> None:
    """Raise OutputError if two outputs are one file, or if one is an input: by its name, or through links.

    Of outputs that do not exist yet, upper and lower case are not told apart: file systems may not either.
    outputs, inputs: by what they are called, such as "the table". A folder stands for all that is in it.
    """
    given = list(outputs.items())
    for number, (name, path) in enumerate(given):
        for other, its_path in given[:number]:
            if _overlap(_folded(path), _folded(its_path)) or _same(path, its_path):
                raise OutputError(f"{name} {path} would be written over {other}, {its_path}; name another file")
        for other, read in inputs.items():
            for written in (path, path.with_name(f"{path.name}.tmp")):
                if read is not None and (_resolved(written) == _resolved(read) or _same(written, read)):
                    raise OutputError(f"{name} {path} would be written over {other}; name another file")


def check_writable(path: Path, *, longest_suffix: str = ".tmp") -> None:
    """Raise OutputError if a file, and beside it one with such a suffix, could not be written there. Writes nothing."""
    try:
        _check_writable(path, longest_suffix)
    except (OSError, ValueError) as error:  # a name that is too long, or none at all: with a NUL
        raise OutputError(f"cannot write {_shown(path)}: {getattr(error, 'strerror', None) or error}") from None


def _check_writable(path: Path, longest_suffix: str) -> None:
    try:
        size = len(f"{path.name}{longest_suffix}".encode())
    except UnicodeEncodeError:
        raise OutputError(f"cannot write {_shown(path)}: its name is not UTF-8") from None
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is not a folder")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is no ordinary file")
    for wanted in (folder, path) if path.exists() else (folder,):
        if not os.access(wanted, os.W_OK):
            raise OutputError(f"cannot write {path}: no permission to write {wanted}")
    if size > (most := _longest_name(folder)):
        raise OutputError(
            f"the name of {_shown(path)} is too long: with {longest_suffix}, which is written beside it, "
            f"it has {size} bytes, and {most} is the most"
        )


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, ValueError, OSError):  # Windows, and file systems that do not say
        return _LONGEST_NAME


def _same(one: Path, other: Path) -> bool:
    """Whether both exist and are one file: hard links, and names that the file system does not tell apart."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, for instance
        return path.absolute()


def _folded(path: Path) -> Path:
    return Path(unicodedata.normalize("NFC", str(_resolved(path))).casefold())


def _overlap(one: Path, other: Path) -> bool:
    """Whether one is the other, or in it."""
    return one in (other, *other.parents) or other in one.parents


def _shown(path: Path) -> str:
    name = str(path).encode("utf-8", "backslashreplace").decode()
    return name if len(name) <= 120 else f"{name[:80]}…{name[-20:]}"
