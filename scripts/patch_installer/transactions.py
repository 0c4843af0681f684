"""Transactions: all of a list of changes or, after any failure or kill, none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .files import ADDED, JOURNAL, STATE, Site, fingerprint, read_json
from .messages import COMMAND, PatchError, reason

UNDO = f"{STATE}/undo"


class Change(NamedTuple):
    """A file before and after; None where it does not exist."""

    path: str
    before: bytes | None
    after: bytes | None


def changes(site: Site, wanted: Mapping[str, bytes | None]) -> list[Change]:
    """The changes that lead to the wanted contents, None for no file, in that order."""
    every = [Change(path, site.read(path), content) for path, content in wanted.items()]
    return [change for change in every if change.before != change.after]


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
