"""What is installed, and the changes that lead from there to patched or to pristine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .files import ADDED, LOCK, MANIFEST, STATE, Site, fingerprint, read_json
from .messages import PatchError
from .package import Package, extend_record, read_record
from .patch import Patch
from .transactions import Change, changes

BACKUP = f"{STATE}/backup"


@dataclass(frozen=True)
class Installation:
    """What is on the disk, classified by the fingerprints of RECORD and of the manifest."""

    pristine: Mapping[str, bytes]
    """The originals of RECORD and of every file that is or will be modified."""
    ours: tuple[str, ...]
    """Added files, backups and the manifest, those that exist."""
    foreign: tuple[str, ...]
    """Files that somebody else changed, each with the reason to think so."""
    patched: bool
    stale: bool
    """Left over from a patch: pip has replaced the package since without knowing of it."""


def read_manifest(site: Site) -> dict[str, dict[str, str]]:
    """What the installer recorded about the installed patch; without a patch, a manifest of no files."""
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
