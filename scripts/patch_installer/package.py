"""The installed transformers, found without importing it, and its RECORD, the list of files that pip keeps."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .files import STATE, Site
from .messages import PatchError

TESTED = ("4.34.0", "4.41.2", "4.48.3", "4.57.6", "5.0.0", "5.23.0", "5.24.0")


class NoPackageError(PatchError):
    """There is no transformers package to patch."""


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
    home = Path(str(distribution.locate_file("transformers")))
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
