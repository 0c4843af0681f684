"""Tells one model folder from another, whatever its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

_MODEL_FILES = (".safetensors", ".bin", ".model", ".tiktoken", ".txt", ".jinja", ".py")
_OF_JSON = ("config", "token", "vocab", "index", "template", "tekken")
"""One of these is in the name of a model's JSON files; others may be a run's, or what was measured."""
_RUN_MANIFEST = ".manifest.json"
"""How the manifest of a run ends, which may have its output in the model's folder."""
_SAMPLES, _SAMPLE = 4096, 4096
"""Of a file of weights: so many pieces of so many bytes, spread evenly. Of 5 GB, one in every megabyte: no matrix that
an adapter was merged into, or that was trained, falls between them."""


def model_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that belong to a model, in the order of their names."""
    for path in sorted(folder.iterdir()):
        named = path.suffix in _MODEL_FILES
        if path.suffix == ".json":
            named = any(part in path.name for part in _OF_JSON) and not path.name.endswith(_RUN_MANIFEST)
        if named and path.is_file():
            yield path


def folder_fingerprint(folder: Path) -> str:
    """Tells one model folder from another without reading all of its weights.

    Name and size of every file that belongs to a model, and what is in it: all of a small one, of a large one samples.
    """
    digest = hashlib.sha256()
    for path in model_files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with open(path, "rb", buffering=0) as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _starts(size: int) -> Iterator[int]:
    """Where the pieces begin that are read of a file."""
    if size <= _SAMPLES * _SAMPLE:
        yield from range(0, size, _SAMPLE)
    else:
        yield from (number * (size - _SAMPLE) // (_SAMPLES - 1) for number in range(_SAMPLES))
