"""What is checked before a change and after it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from .files import MANIFEST
from .installation import Installation
from .messages import PatchError, say
from .package import TESTED, Package
from .patch import Patch

SELF_TEST = "transformers.interpretation.self_test"
SELF_TEST_SECONDS = 900  # importing torch from a cold network drive takes minutes


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
    """Refuse to touch files that somebody else changed."""
    if installation.foreign:
        raise PatchError(
            f"changed by somebody else, so nothing was touched: {'; '.join(installation.foreign)}. "
            f"To start afresh, move these files away and run: {package.remedy}"
        )


def check_permissions(package: Package, patch: Patch) -> None:
    """Warn when anybody on this machine could change what the patch changes."""
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
