"""Files of the package: every one is written whole or not at all, and nothing outside the folder is touched."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from .messages import PatchError, say

try:
    import fcntl
except ImportError:  # Windows: nothing guards against two installers at once
    fcntl = None  # type: ignore[assignment]

# Paths relative to the folder that holds the package (site-packages), written with slashes as in RECORD.
ADDED = "transformers/interpretation"
STATE = "transformers-llm-interpret"  # no valid module name: nobody imports it by mistake
MANIFEST = f"{STATE}/patch.json"
LOCK = f"{STATE}/lock"
JOURNAL = f"{STATE}/journal.json"


@overload
def fingerprint(content: bytes) -> str: ...


@overload
def fingerprint(content: bytes | None) -> str | None: ...


def fingerprint(content: bytes | None) -> str | None:
    """The last two columns of a RECORD row, "sha256=…,size"; None for a file that does not exist."""
    if content is None:
        return None
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"


@dataclass(frozen=True)
class Site:
    """The folder that holds the package; every file operation of the installer goes through here."""

    folder: Path

    def locate(self, path: str) -> Path:
        """The place of `path`; a symbolic link on the way is refused, so that nothing outside is ever touched."""
        place = self.folder
        for part in path.split("/"):
            if part in ("", ".", ".."):
                raise PatchError(f"{path!r} leads out of {self.folder}: refused")
            place = place / part
            if place.is_symlink():
                raise PatchError(f"{place} is a symbolic link, which is not followed: install plain files with pip")
        return place

    def read(self, path: str) -> bytes | None:
        """The content of a file, None if there is no such file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self.locate(path).read_bytes()
        return None

    def walk(self, path: str) -> list[str]:
        """All files below a folder, without bytecode."""
        found = []
        for folder, _, names in os.walk(self.locate(path)):
            if os.path.basename(folder) != "__pycache__":
                found += [(Path(folder) / name).relative_to(self.folder).as_posix() for name in names]
        return sorted(found)

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        """Write under a temporary name in the same folder, flush, rename: the file is old or new, never in between."""
        target = self.locate(path)
        if mode is None:
            mode = self._mode(target)
        self.make_folder(target.parent)
        temporary = self._temporary(target)
        self._unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.chmod(temporary, mode)  # the mode of os.open is cut by the umask
        self._rename(temporary, target)

    def copy(self, source: str, target: str) -> None:
        """Copy content and mode."""
        self.write(target, self.locate(source).read_bytes(), self._mode(self.locate(source)))

    def move(self, source: str, target: str) -> None:
        """Rename over `target`: needs no space on the disk."""
        self.make_folder(self.locate(target).parent)
        self._rename(self.locate(source), self.locate(target))

    def remove(self, path: str) -> None:
        """Remove a file with its bytecode."""
        self._unlink(self.locate(path))
        self._drop_bytecode(self.locate(path))

    def prune(self, path: str) -> None:
        """Remove the empty folders in a folder, and itself if nothing is left in it."""
        for folder, _, _ in os.walk(self.locate(path), topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)

    def clean(self, path: str) -> None:
        """Remove what a killed write of `path` left."""
        self._unlink(self._temporary(self.locate(path)))

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those above it, with the permissions of the whole."""
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            os.mkdir(place)
            os.chmod(place, stat.S_IMODE(self.folder.stat().st_mode) & 0o775)

    def _mode(self, target: Path) -> int:
        """The permissions of the file; those of a new file follow the folder's, never writable by everyone."""
        if target.exists():
            return stat.S_IMODE(target.stat().st_mode)
        return stat.S_IMODE(self.folder.stat().st_mode) & 0o664

    def _rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)
        self._drop_bytecode(target)
        if os.name == "posix":  # the rename itself reaches the disk with the folder
            descriptor = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @staticmethod
    def _temporary(target: Path) -> Path:
        return target.with_name(f".{target.name}.llm-interpret")

    @staticmethod
    def _unlink(target: Path) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(target)

    def _drop_bytecode(self, target: Path) -> None:
        """Bytecode is valid by time (in seconds) and size of its source: two quick installs could share both."""
        cache = target.parent / "__pycache__"
        if target.suffix != ".py" or not cache.is_dir() or cache.is_symlink():
            return
        for compiled in cache.glob(f"{target.stem}.*.pyc"):
            self._unlink(compiled)


@contextlib.contextmanager
def locked(site: Site) -> Iterator[None]:
    """One installer at a time; the others wait. The system drops the lock of a killed one."""
    place = site.locate(LOCK)
    while True:
        site.make_folder(place.parent)
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the installer before us has just removed the folder
            continue
        wait_for_lock(descriptor, place)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                break
        os.close(descriptor)  # locked, but removed by the one before us: once more
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if site.read(MANIFEST) is None and site.read(JOURNAL) is None:
                site.remove(LOCK)
                site.prune(STATE)
        os.close(descriptor)


def wait_for_lock(descriptor: int, place: Path) -> None:
    """Return when the lock is ours, or at once where the file system has no locks."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another install_patch.py is at work on {place.parent.parent}: waiting for it to end")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        say(f"warning: cannot lock {place} ({error.strerror}): make sure that no other installer runs")


def read_json(site: Site, path: str, keys: Sequence[str]) -> dict | None:
    """An object with these keys; None if there is no such file."""
    text = site.read(path)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        content = json.loads(text)
        if isinstance(content, dict) and set(keys) <= set(content):
            return content
    remedy = f"remove {site.folder / STATE} and run: python -m pip install --force-reinstall --no-deps transformers"
    raise PatchError(f"{site.folder / path} is damaged; {remedy}")
