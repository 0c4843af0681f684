"""What the patch consists of: the files of `transformers_files/`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .files import ADDED
from .messages import PatchError

DOCUMENTS = ("README.md", "CHANGELOG.md")  # in transformers_files/, but no part of the patch
INIT = f"{ADDED}/__init__.py"
NOTICE = """

# ----------------------------------------------------------------------------------------------------------------------
# Changed by install_patch.py of llm-interpret (notice as asked for by the Apache License 2.0, section 4b): above stands
# the file of transformers {version}, unchanged; below, what was added. `python install_patch.py restore` removes it.
"""


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
