"""What vectors are called: by their numbers, by a list, or by the lines of a text file beside them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from .vector_file import VectorsError

_STRIDE = 1024
"""Lines between two places that are remembered: names of a million rows are not held in memory."""


@dataclass(frozen=True)
class Numbered:
    """vector 0, vector 1, …"""

    digest: str | None = None

    def read(self, start: int, stop: int) -> list[str]:
        return [f"vector {index}" for index in range(start, stop)]


@dataclass(frozen=True)
class Listed:
    """Names that the file of vectors has itself."""

    names: Sequence[str]
    digest: str | None = None

    def read(self, start: int, stop: int) -> list[str]:
        return list(self.names[start:stop])


@dataclass(frozen=True)
class NameLines:
    """A text file with a name on each line."""

    path: Path
    n: int
    digest: str
    """Of all its bytes."""
    _places: Sequence[int] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> NameLines:
        """Raises VectorsError for a file that is no text in UTF-8, or none at all."""
        digest, places, place, number = hashlib.sha256(), array("Q"), 0, 0
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    if (number - 1) % _STRIDE == 0:
                        places.append(place)
                    line.decode()
                    digest.update(line)
                    place += len(line)
        except UnicodeDecodeError as error:
            raise VectorsError(f"names {path}: line {number} is not UTF-8 ({error.reason})") from None
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            raise VectorsError(f"cannot read names {path}: {getattr(error, 'strerror', None) or error}") from None
        return cls(path, number, digest.hexdigest()[:16], places)

    def read(self, start: int, stop: int) -> list[str]:
        if start == stop:
            return []
        with open(self.path, "rb") as file:
            file.seek(self._places[start // _STRIDE])
            lines = islice(file, start % _STRIDE, start % _STRIDE + stop - start)
            return [line.decode().rstrip("\r\n") for line in lines]
