"""The installer's commands. Each function returns the result in words."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from . import checks
from .checks import check_ours, confirm
from .files import ADDED, JOURNAL, MANIFEST, STATE, Site, locked
from .installation import Installation, examine, our_files, patched_files, plan_install, plan_restore
from .messages import COMMAND, PatchError, say
from .package import TESTED, Package
from .patch import INIT, Patch, stated_version
from .transactions import UNDO, Transaction, changes


def install(package: Package, patch: Patch, yes: bool) -> str:
    """Patch the package, unless it is patched already."""
    installation = examine(package, patch)
    check_ours(package, installation)
    planned = plan_install(package, patch, installation)
    if not planned:
        return f"{describe(package)} is patched already: nothing to do"
    confirm(package, yes)
    Transaction(package.site).run(planned, lambda: checks.run_self_test(package.site.folder / STATE))
    return (
        f"{describe(package)} is patched: {len(patch.appended)} files modified, {len(patch.added)} added, self-test "
        f"passed; originals in {package.site.folder / STATE}; back with `{COMMAND} restore`"
    )


def restore(package: Package, patch: Patch) -> str:
    """Restore the original files."""
    installation = examine(package, patch)
    check_ours(package, installation)
    planned = plan_restore(package, installation)
    if not planned:
        return f"{describe(package)} is not patched: nothing to do"
    Transaction(package.site).run(planned)
    return f"{describe(package)} is as pip installed it"


def status(package: Package, patch: Patch) -> str:
    """Report what is installed."""
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
    """Whether the patch works: tried where it is installed, else on a temporary copy of the package."""
    installation = examine(package, patch)
    check_ours(package, installation)
    if not installation.patched:
        with tempfile.TemporaryDirectory() as folder:
            copy_patched(package, patch, installation, Path(folder))
            checks.run_self_test(Path(folder))
        return f"{describe(package)} is not patched; the patch fits it: self-test passed on a temporary copy"
    planned = plan_install(package, patch, installation)
    if planned:
        names = ", ".join(change.path for change in planned)
        raise PatchError(f"the installed patch is not that of this copy; different: {names}. Remedy: {COMMAND}")
    checks.run_self_test(package.site.folder / STATE)
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
