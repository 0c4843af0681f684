#!/usr/bin/env python
"""Patch the transformers package of this interpreter, or put the original back.

    python install_patch.py              patch it (the same as `install`); a second time changes nothing
    python install_patch.py restore      the original files again, byte for byte; everything added is removed
    python install_patch.py status       what is installed, and where the backups are
    python install_patch.py verify       does the patch work here? Unpatched: tried on a temporary copy
    python install_patch.py render DIR   write the modified files and the added ones to DIR instead

A modified file is the original, a notice of the change, and the text of the file of the same path in
`transformers_files/`. The folder `interpretation/` is added as it is; the documents beside it are no part of the patch.
Every run is a transaction: all of it or, after any failure, nothing. What a killed run leaves behind, the next one
repairs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows: nothing guards against two installers at once
    fcntl = None

TESTED = ("4.34.0", "4.41.2", "4.48.3", "4.57.6", "5.0.0", "5.23.0", "5.24.0")
SOURCE = Path(__file__).resolve().parent / "transformers_files"
COMMAND = "python install_patch.py"
SELF_TEST = "transformers.interpretation.self_test"
SELF_TEST_SECONDS = 900  # importing torch from a cold network drive takes minutes

DOCUMENTS = ("README.md", "CHANGELOG.md")  # in transformers_files/, but no part of the patch

# Paths relative to the folder that holds the package (site-packages), written with slashes as in RECORD.
ADDED = "transformers/interpretation"
INIT = f"{ADDED}/__init__.py"
STATE = "transformers-llm-interpret"  # no valid module name: nobody imports it by mistake
MANIFEST = f"{STATE}/patch.json"
BACKUP = f"{STATE}/backup"
LOCK = f"{STATE}/lock"
JOURNAL = f"{STATE}/journal.json"
UNDO = f"{STATE}/undo"

NOTICE = """

# ----------------------------------------------------------------------------------------------------------------------
# Changed by install_patch.py of llm-interpret (notice as asked for by the Apache License 2.0, section 4b): above stands
# the file of transformers {version}, unchanged; below, what was added. `python install_patch.py restore` removes it.
"""


class PatchError(Exception):
    """What is wrong, where, and the remedy, in one line."""


class NoPackageError(PatchError):
    """There is no transformers package to patch."""


def fingerprint(content: bytes | None) -> str | None:
    """The last two columns of a RECORD row, "sha256=…,size"; None for a file that does not exist."""
    if content is None:
        return None
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"


# ---- files -----------------------------------------------------------------------------------------------------------


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
    """Return when the lock is ours; go on without where the file system has no locks."""
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


# ---- transactions ----------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A file before and after; None where it does not exist."""

    path: str
    before: bytes | None
    after: bytes | None


class Entry(NamedTuple):
    """A change as the journal holds it: fingerprints for contents."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Transaction:
    """All of a list of changes or none.

    Before the first change the old contents are copied to UNDO and the journal is written; removing the journal is the
    commit. Old contents come back by renaming, so that a full disk cannot stop the way back.
    """

    site: Site

    def run(self, changes: Iterable[Change], prove: Callable[[], None] | None = None) -> None:
        """Apply the changes in order, then `prove` that they work. Any failure brings the state before back."""
        changes = list(changes)
        try:
            self._begin(changes, provisional=prove is not None)
            for change in changes:
                if change.after is None:
                    self.site.remove(change.path)
                else:
                    self.site.write(change.path, change.after)
            if prove is not None:
                prove()
            self._end()
        except BaseException as error:
            outcome = self._abort(error)
            if not isinstance(error, Exception):
                raise
            raise PatchError(f"{reason(error)}; {outcome}") from error
        self.sweep()

    def recover(self) -> str | None:
        """Repair what a killed run left and say how; None if there was nothing to repair."""
        journal = read_json(self.site, JOURNAL, ("provisional", "entries"))
        if journal is None:
            self.sweep()
            return None
        entries = [Entry(*row) for row in journal["entries"]]
        found = {entry.path: fingerprint(self.site.read(entry.path)) for entry in entries}
        if not journal["provisional"] and all(found[entry.path] == entry.after for entry in entries):
            outcome = "everything had been done"
        elif any(entry.path.endswith(".dist-info/RECORD") and found[entry.path] not in entry[1:] for entry in entries):
            self._discard(entries, found)
            outcome = "pip has replaced or removed the package since; what was left of the patch is removed"
        else:
            self._undo(entries, found)
            outcome = "everything is as it was before"
        self._end()
        self.sweep()
        return outcome

    def sweep(self) -> None:
        """Remove old contents that no journal needs. It matters so little that a failure is left to the next run."""
        if self.site.read(JOURNAL) is not None:
            return
        with contextlib.suppress(OSError):
            for path in self.site.walk(UNDO):
                self.site.remove(path)
            self.site.clean(JOURNAL)
            self.site.prune(STATE)

    def _begin(self, changes: list[Change], provisional: bool) -> None:
        for number, change in enumerate(changes):
            if change.before is not None:
                self.site.copy(change.path, f"{UNDO}/{number}")
        entries = [Entry(change.path, fingerprint(change.before), fingerprint(change.after)) for change in changes]
        self.site.write(JOURNAL, json.dumps({"provisional": provisional, "entries": entries}, indent=1).encode())

    def _end(self) -> None:
        self.site.prune(ADDED)
        self.site.remove(JOURNAL)

    def _undo(self, entries: list[Entry], found: Mapping[str, str | None]) -> None:
        for number, entry in reversed(list(enumerate(entries))):
            self.site.clean(entry.path)
            if found[entry.path] != entry.after or entry.before == entry.after:
                continue  # not reached, or changed by somebody else since: theirs
            if entry.before is None:
                self.site.remove(entry.path)
            else:
                self.site.move(f"{UNDO}/{number}", entry.path)

    def _discard(self, entries: list[Entry], found: Mapping[str, str | None]) -> None:
        for entry in entries:
            self.site.clean(entry.path)
            ours = entry.path.startswith((f"{ADDED}/", f"{STATE}/"))
            if ours and found[entry.path] in entry[1:]:
                self.site.remove(entry.path)
        self.site.prune("transformers")

    def _abort(self, error: BaseException) -> str:
        try:
            return self.recover() or "nothing was changed"
        except (OSError, PatchError) as second:
            raise PatchError(
                f"{reason(error)}; the way back failed too ({reason(second)}): "
                f"when the cause is gone, `{COMMAND} status` completes it"
            ) from error


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        remedy = " (run this as the owner of the package)" if error.errno in (errno.EACCES, errno.EPERM) else ""
        return (f"{error.filename}: {error.strerror}" if error.filename else error.strerror) + remedy
    return str(error) or type(error).__name__


# ---- the package, its RECORD, the patch ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """An installed transformers."""

    site: Site
    version: str

    @property
    def record(self) -> str:
        """Where pip keeps the list of the package's files."""
        return f"transformers-{self.version}.dist-info/RECORD"

    @property
    def remedy(self) -> str:
        """The command that always brings the original files back."""
        return f"python -m pip install --force-reinstall --no-deps transformers=={self.version}"


def find_package() -> Package:
    """The transformers that this interpreter would import, found without importing it."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        left = [] if spec is None else list(spec.submodule_search_locations or [])
        rest = f" (only the left-over folder {left[0]})" if left else ""
        remedy = f"python -m pip install transformers=={TESTED[-1]}"
        raise NoPackageError(f"no transformers is installed for {sys.executable}{rest}: {remedy}")
    root = Path(spec.origin).parent
    if not Path(spec.origin).is_file():
        raise PatchError(f"{root} lies in a zip file, which cannot be patched: install transformers with pip")
    try:
        distribution = importlib.metadata.distribution("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise PatchError(f"{root} was not installed by pip (no metadata): install transformers with pip") from None
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        raise PatchError(f"{root} is an editable install, a source tree of your own: install transformers from a wheel")
    package = Package(Site(root.parent), distribution.version)
    home = Path(distribution.locate_file("transformers"))
    if home.resolve() != root.resolve() or package.site.read(package.record) is None:
        raise PatchError(f"{root} is not what pip installed (no {package.record} beside it): install it from a wheel")
    return package


def find_leftovers() -> list[Site]:
    """The folders on the module path where the installer keeps something."""
    return [Site(Path(entry)) for entry in dict.fromkeys(sys.path) if (Path(entry) / STATE).is_dir()]


def read_record(content: bytes) -> dict[str, str]:
    """Path → fingerprint of every file that RECORD lists."""
    return {row[0]: ",".join(row[1:]) for row in csv.reader(content.decode().splitlines()) if row}


def extend_record(content: bytes, rows: Mapping[str, str]) -> bytes:
    """RECORD with new fingerprints for files that it lists, and rows for the others; all else byte for byte."""
    lines = content.decode().splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    kept, open_rows = [], dict(rows)
    for line in lines:
        path = next(csv.reader([line]), [""])[0]
        kept.append(f"{path},{open_rows.pop(path)}{end}" if path in open_rows else line)
    if kept and not kept[-1].endswith(end):
        kept[-1] += end
    return "".join(kept + [f"{path},{value}{end}" for path, value in sorted(open_rows.items())]).encode()


@dataclass(frozen=True)
class Patch:
    """The files of `transformers_files/`, by the path that they have in site-packages."""

    appended: Mapping[str, bytes]
    """Text for the end of a file of the package."""
    added: Mapping[str, bytes]
    """New files."""

    @classmethod
    def read(cls, source: Path) -> Patch:
        """Read the tree beside this program."""
        if not source.is_dir():
            raise PatchError(f"{source} is missing: run install_patch.py out of a complete copy of its repository")
        files = sorted(place for place in source.rglob("*") if place.is_file() and "__pycache__" not in place.parts)
        files = [place for place in files if place.relative_to(source).as_posix() not in DOCUMENTS]
        contents = {f"transformers/{place.relative_to(source).as_posix()}": place.read_bytes() for place in files}
        added = {path: content for path, content in contents.items() if path.startswith(f"{ADDED}/")}
        return cls({path: contents[path] for path in contents if path not in added}, added)

    @property
    def version(self) -> str:
        """The version of llm-interpret."""
        return stated_version(self.added.get(INIT))

    def modified(self, path: str, version: str, pristine: bytes) -> bytes:
        """The modified copy of a file of the package."""
        return pristine + NOTICE.format(version=version).encode() + self.appended[path]


def stated_version(content: bytes | None) -> str:
    """The `__version__` that a module states; it is read as text, because importing it may not work."""
    stated = re.search(rb'^__version__ = "([^"]+)"', content or b"", re.MULTILINE)
    return stated[1].decode() if stated else "without a version"


# ---- what is installed, and what should be ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """What stands on the disk, told apart by the fingerprints of RECORD and of the manifest."""

    pristine: Mapping[str, bytes]
    """The originals of RECORD and of every file that is or will be modified."""
    ours: tuple[str, ...]
    """Added files, backups and the manifest, as far as they are there."""
    foreign: tuple[str, ...]
    """Files that somebody else changed, each with the reason to think so."""
    patched: bool
    stale: bool
    """Left over from a patch: pip has replaced the package since without knowing of it."""


def read_manifest(site: Site) -> dict[str, dict[str, str]]:
    """What the installer wrote down about the installed patch; without one, about no files."""
    return read_json(site, MANIFEST, ("modified", "added")) or {"modified": {}, "added": {}}


def backup_of(path: str) -> str:
    """Where the original of a modified file is kept; the suffix keeps programs that compile whole trees away."""
    return f"{BACKUP}/{path}.orig"


def our_files(site: Site) -> tuple[str, ...]:
    """Added files, unless somebody changed them, and everything in our own folder."""
    added = [path for path, value in read_manifest(site)["added"].items() if fingerprint(site.read(path)) == value]
    return (*added, *site.walk(BACKUP), *([MANIFEST] if site.read(MANIFEST) is not None else []))


def patched_record(pristine: bytes, files: Mapping[str, str], state: Mapping[str, bytes | None]) -> bytes:
    """RECORD with the patch in it, so that pip removes every file of the patch together with the package."""
    return extend_record(pristine, {**files, **{path: fingerprint(state[path]) or "," for path in state}})


def examine(package: Package, patch: Patch) -> Installation:
    """Compare the disk with RECORD and the manifest."""
    site, manifest = package.site, read_manifest(package.site)
    record = site.read(package.record) or b""
    has_manifest = site.read(MANIFEST) is not None
    patched = MANIFEST in read_record(record)
    if patched and not has_manifest:
        raise PatchError(f"{site.folder / MANIFEST} is missing: {package.remedy}")
    modified = manifest["modified"] if patched else {}
    original_record = site.read(backup_of(package.record)) or b"" if patched else record
    listed, pristine, foreign = read_record(original_record), {package.record: original_record}, []
    for path in sorted({*patch.appended, *modified}):
        found = site.read(path)
        original = site.read(backup_of(path)) if path in modified else found
        if original is None:
            raise PatchError(f"transformers {package.version} has no {path}: the patch does not fit this version")
        pristine[path] = original
        if listed.get(path, ",").startswith(","):
            raise PatchError(
                f"{package.record} has no hash of {path}, so nothing tells whether it is as transformers "
                f"{package.version} has it; install the package as pip does: {package.remedy}"
            )
        if fingerprint(original) != listed.get(path):
            foreign.append(f"{path} (not as transformers {package.version} has it)")
        elif found is not None and fingerprint(found) not in (listed[path], modified.get(path)):
            foreign.append(f"{path} (changed since it was patched)")
    for path in site.walk(ADDED):
        known = (manifest["added"].get(path), None if patched else fingerprint(patch.added.get(path)))
        if fingerprint(site.read(path)) not in known:
            foreign.append(f"{path} (not put there by this program, or changed since)")
    if patched:
        state = {path: site.read(path) for path in (MANIFEST, LOCK, *site.walk(BACKUP))}
        expected = patched_record(original_record, {**modified, **manifest["added"]}, state)
        if read_record(record) != read_record(expected):
            foreign.append(f"{package.record} (changed since it was patched)")
    return Installation(pristine, our_files(site), tuple(foreign), patched, stale=has_manifest and not patched)


def patched_files(package: Package, patch: Patch, pristine: Mapping[str, bytes]) -> dict[str, bytes]:
    """Modified and added files, added ones first: a modified file may import them at any time."""
    texts = {path: patch.modified(path, package.version, pristine[path]) for path in patch.appended}
    return {**patch.added, **texts}


def plan_install(package: Package, patch: Patch, installation: Installation) -> list[Change]:
    """From what is there to patched. RECORD comes first: pip must know every file that may ever be there."""
    pristine, files = installation.pristine, patched_files(package, patch, installation.pristine)
    prints = {path: fingerprint(content) for path, content in files.items()}
    manifest = {
        "transformers": package.version,
        "modified": {path: prints[path] for path in patch.appended},
        "added": {path: prints[path] for path in patch.added},
    }
    backups = {backup_of(path): pristine[path] for path in (package.record, *patch.appended)}
    state = {MANIFEST: json.dumps(manifest, indent=1).encode(), **backups}
    wanted = {
        package.record: patched_record(pristine[package.record], prints, {**state, LOCK: b""}),
        **state,
        **files,
    }
    untouched = {path: pristine[path] for path in pristine if path not in wanted}  # modified by an older patch
    obsolete = {path: None for path in installation.ours if path not in wanted}
    return changes(package.site, {**wanted, **untouched, **obsolete})


def plan_restore(package: Package, installation: Installation) -> list[Change]:
    """From what is there to the originals. RECORD comes last, for the same reason."""
    pristine = dict(installation.pristine)
    record = {package.record: pristine.pop(package.record)}
    return changes(package.site, {**pristine, **dict.fromkeys(installation.ours), **record})


def changes(site: Site, wanted: Mapping[str, bytes | None]) -> list[Change]:
    """The changes that lead to the wanted contents, None for no file, in that order."""
    every = [Change(path, site.read(path), content) for path, content in wanted.items()]
    return [change for change in every if change.before != change.after]


# ---- checks ----------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A remark: not a result, so not for stdout."""
    print(f"install_patch.py: {text}", file=sys.stderr)


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def check_version(package: Package, allow_untested: bool) -> None:
    """Refuse a version older than the tested ones; for any other untested one say that the self-test decides."""
    tested = ", ".join(TESTED)
    if package.version in TESTED:
        return
    older = numbers(package.version) < numbers(TESTED[0])
    if older and not allow_untested:
        raise PatchError(
            f"transformers {package.version} is older than the tested versions ({tested}). "
            "Install one of these, or try this one with --allow-untested"
        )
    newer = numbers(package.version) > numbers(TESTED[-1])
    where = "older than" if older else "newer than" if newer else "between"
    say(f"transformers {package.version} is {where} the tested versions ({tested}): the self-test decides")


def check_ours(package: Package, installation: Installation) -> None:
    """Refuse to touch what somebody else changed."""
    if installation.foreign:
        raise PatchError(
            f"changed by somebody else, so nothing was touched: {'; '.join(installation.foreign)}. "
            f"To start afresh, move these files away and run: {package.remedy}"
        )


def check_permissions(package: Package, patch: Patch) -> None:
    """Say it when anybody on this machine could change what the patch changes."""
    if os.name != "posix":
        return
    places = {package.site.folder}
    for path in (*patch.appended, *patch.added, MANIFEST, package.record):
        place = package.site.locate(path)
        places.update(folder for folder in (place, *place.parents) if package.site.folder in folder.parents)
    for place in sorted(places):
        if place.exists() and place.stat().st_mode & stat.S_IWOTH:
            say(f"warning: everyone on this machine can change {place}; remedy: chmod o-w {place}")


def confirm(package: Package, yes: bool) -> None:
    """Outside a virtual environment others may use the package too: ask first."""
    inside = sys.prefix != sys.base_prefix and Path(sys.prefix).resolve() in package.site.folder.resolve().parents
    if yes or inside:
        return
    where = f"{package.site.folder / 'transformers'} is not in a virtual environment"
    if not sys.stdin.isatty():
        raise PatchError(f"{where} and there is no terminal to ask: say --yes to patch it all the same")
    if input(f"{where}. Patch it all the same? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PatchError("not patched")


def run_self_test(folder: Path) -> None:
    """Run the self-test of the installed patch in a process of its own, with `folder` first on its module path."""
    unset = ("PYTHONSAFEPATH", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    entries = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment.update({"PYTHONPATH": os.pathsep.join(entries), "HF_HUB_OFFLINE": "1"})
    command = [sys.executable, "-B", "-m", SELF_TEST]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SELF_TEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise PatchError(f"the self-test did not end within {SELF_TEST_SECONDS} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise PatchError(f"the self-test failed: {lines[-1]}")


# ---- verbs -----------------------------------------------------------------------------------------------------------


def install(package: Package, patch: Patch, yes: bool) -> str:
    """Patch the package, unless it is patched already."""
    installation = examine(package, patch)
    check_ours(package, installation)
    planned = plan_install(package, patch, installation)
    if not planned:
        return f"{describe(package)} is patched already: nothing to do"
    confirm(package, yes)
    Transaction(package.site).run(planned, lambda: run_self_test(package.site.folder / STATE))
    return (
        f"{describe(package)} is patched: {len(patch.appended)} files modified, {len(patch.added)} added, self-test "
        f"passed; originals in {package.site.folder / STATE}; back with `{COMMAND} restore`"
    )


def restore(package: Package, patch: Patch) -> str:
    """The original files again."""
    installation = examine(package, patch)
    check_ours(package, installation)
    planned = plan_restore(package, installation)
    if not planned:
        return f"{describe(package)} is not patched: nothing to do"
    Transaction(package.site).run(planned)
    return f"{describe(package)} is as pip installed it"


def status(package: Package, patch: Patch) -> str:
    """What is installed."""
    installation = examine(package, patch)
    tested = "tested" if package.version in TESTED else f"untested; tested: {', '.join(TESTED)}"
    if installation.foreign:
        state = f"changed by somebody else: {'; '.join(installation.foreign)}"
    elif installation.stale:
        state = f"not patched; pip replaced the package, of the patch {len(installation.ours)} files are left over"
    elif not installation.patched:
        state = "not patched"
    elif plan_install(package, patch, installation):
        state = f"patched, but not as this copy would do it: `{COMMAND}` updates it"
    else:
        state = f"patched: {len(patch.appended)} files modified, {len(patch.added)} added"
    installed = stated_version(package.site.read(INIT)) if installation.patched else None
    which = (
        "not installed"
        if installed is None
        else "installed"
        if installed == patch.version
        else f"installed: {installed}"
    )
    place = package.site.folder / STATE
    backups = f"{place} (originals and journal)" if place.exists() else "none"
    return f"llm-interpret {patch.version}, {which}\n{describe(package)} ({tested})\nstate: {state}\nbackups: {backups}"


def verify(package: Package, patch: Patch) -> str:
    """Does the patch work? Tried where it is installed, else on a temporary copy of the package."""
    installation = examine(package, patch)
    check_ours(package, installation)
    if not installation.patched:
        with tempfile.TemporaryDirectory() as folder:
            copy_patched(package, patch, installation, Path(folder))
            run_self_test(Path(folder))
        return f"{describe(package)} is not patched; the patch fits it: self-test passed on a temporary copy"
    planned = plan_install(package, patch, installation)
    if planned:
        names = ", ".join(change.path for change in planned)
        raise PatchError(f"the installed patch is not that of this copy; different: {names}. Remedy: {COMMAND}")
    run_self_test(package.site.folder / STATE)
    return f"{describe(package)} is patched, every file is as it should be, self-test passed"


def copy_patched(package: Package, patch: Patch, installation: Installation, folder: Path) -> None:
    """A patched package in `folder`, made of links to the installed one wherever that is the same."""
    root, copied = package.site.folder / "transformers", Site(folder)
    shutil.copytree(root, folder / "transformers", copy_function=link_or_copy)
    shutil.rmtree(folder / ADDED, ignore_errors=True)
    for path, content in patched_files(package, patch, installation.pristine).items():
        (folder / path).unlink(missing_ok=True)
        copied.write(path, content)


def link_or_copy(source: str, target: str) -> None:
    """A symbolic link where the system lets us make one."""
    try:
        os.symlink(source, target)
    except OSError:
        shutil.copy2(source, target)


def render(package: Package, patch: Patch, folder: Path) -> str:
    """Write the modified and the added files to a new or empty folder, as they lie in the package."""
    installation = examine(package, patch)
    check_ours(package, installation)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PatchError(f"{folder} is not an empty folder: name a new one")
    files = patched_files(package, patch, installation.pristine)
    for path, content in files.items():
        target = folder / Path(path).relative_to("transformers")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return f"{len(files)} files for {describe(package)} written to {folder}"


def describe(package: Package) -> str:
    """Version and place."""
    return f"transformers {package.version} in {package.site.folder / 'transformers'}"


# ---- the command line ------------------------------------------------------------------------------------------------

READERS = {
    "status": lambda package, patch, _: status(package, patch),
    "verify": lambda package, patch, _: verify(package, patch),
    "render": lambda package, patch, arguments: render(package, patch, arguments.folder),
}
"""Verbs that change nothing."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="install_patch.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", nargs="?", default="install", choices=("install", "restore", *READERS))
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="where `render` writes to")
    parser.add_argument("--yes", action="store_true", help="patch outside a virtual environment without asking")
    parser.add_argument("--allow-untested", action="store_true", help="try a version older than the tested ones")
    parsed = parser.parse_args(arguments)
    if (parsed.verb == "render") != (parsed.folder is not None):
        parser.error("`render` needs a folder to write to, and nothing else does")
    return parsed


def repair(site: Site) -> None:
    """Finish or undo what a killed run left. A reader that finds nothing of that kind neither locks nor writes."""
    left = site.locate(STATE).is_dir() and (site.read(JOURNAL), site.locate(UNDO).exists(), site.read(MANIFEST))
    if left and (left[0] is not None or left[1] or left[2] is None):
        with locked(site):
            report_recovery(site)


def report_recovery(site: Site) -> None:
    """Recover, and say so if there was anything to recover. The lock must be held."""
    outcome = Transaction(site).recover()
    if outcome:
        say(f"an earlier run was interrupted: {outcome}")


def clear_leftovers(site: Site) -> str:
    """Remove what is left of a patch whose package is gone."""
    with locked(site):
        Transaction(site).run(changes(site, dict.fromkeys(our_files(site))))
        site.prune("transformers")
    return f"no transformers in {site.folder}; what was left of the patch is removed"


def run(arguments: argparse.Namespace) -> str:
    """Do what the command line says; the result in words."""
    try:
        package = find_package()
    except NoPackageError as error:
        return run_without_package(arguments.verb, error)
    patch = Patch.read(SOURCE)
    check_permissions(package, patch)
    if arguments.verb not in ("restore", "status"):
        check_version(package, arguments.allow_untested)
    if arguments.verb in READERS:
        repair(package.site)
        return READERS[arguments.verb](package, patch, arguments)
    with locked(package.site):
        report_recovery(package.site)
        if arguments.verb == "restore":
            return restore(package, patch)
        return install(package, patch, arguments.yes)


def run_without_package(verb: str, error: NoPackageError) -> str:
    """All that can be done then is to clear away what is left of the patch."""
    for site in find_leftovers():
        repair(site)
    sites = find_leftovers()
    if verb == "restore" and sites:
        return "\n".join(clear_leftovers(site) for site in sites)
    raise PatchError(f"{error}; `{COMMAND} restore` removes what is left of the patch" if sites else str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        print(run(parse(arguments)))
    except (PatchError, OSError) as error:
        say(f"error: {reason(error)}")
        return 2
    except KeyboardInterrupt:
        say("interrupted: what had been begun is undone, at the latest by the next run")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
