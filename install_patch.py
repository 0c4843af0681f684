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
import sys
from collections.abc import Sequence
from pathlib import Path

HOME = Path(__file__).resolve().parent
if not (HOME / "scripts" / "patch_installer").is_dir():
    print(
        f"install_patch.py: error: {HOME} is not a complete copy of its repository: scripts/ is missing",
        file=sys.stderr,
    )
    sys.exit(2)
sys.path.insert(0, str(HOME / "scripts"))

from patch_installer import checks, verbs
from patch_installer.files import locked
from patch_installer.messages import COMMAND, PatchError, reason, say
from patch_installer.package import NoPackageError, find_leftovers, find_package
from patch_installer.patch import Patch

SOURCE = HOME / "transformers_files"

READERS = {
    "status": lambda package, patch, _: verbs.status(package, patch),
    "verify": lambda package, patch, _: verbs.verify(package, patch),
    "render": lambda package, patch, arguments: verbs.render(package, patch, arguments.folder),
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


def run(arguments: argparse.Namespace) -> str:
    """Do what the command line says; the result in words."""
    try:
        package = find_package()
    except NoPackageError as error:
        return run_without_package(arguments.verb, error)
    patch = Patch.read(SOURCE)
    checks.check_permissions(package, patch)
    if arguments.verb not in ("restore", "status"):
        checks.check_version(package, arguments.allow_untested)
    if arguments.verb in READERS:
        verbs.repair(package.site)
        return READERS[arguments.verb](package, patch, arguments)
    with locked(package.site):
        verbs.report_recovery(package.site)
        if arguments.verb == "restore":
            return verbs.restore(package, patch)
        return verbs.install(package, patch, arguments.yes)


def run_without_package(verb: str, error: NoPackageError) -> str:
    """All that can be done then is to clear away what is left of the patch."""
    for site in find_leftovers():
        verbs.repair(site)
    sites = find_leftovers()
    if verb == "restore" and sites:
        return "\n".join(verbs.clear_leftovers(site) for site in sites)
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
