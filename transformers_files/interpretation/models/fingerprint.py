"""Tells one model folder from another, whatever its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py")
_RUN_MANIFEST = ".manifest.json"
"""How the manifest of a run ends, which may have its output in the model's folder."""
_SAMPLE = 64 * 1024


def folder_fingerprint(folder: Path) -> str:
    """Tells one model folder from another without reading all of its weights.

    Name and size of every file that belongs to a model, and three samples of it: its beginning, middle and end.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _MODEL_FILES and not path.name.endswith(_RUN_MANIFEST):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with open(path, "rb") as file:
                for start in (0, max(0, (size - _SAMPLE) // 2), max(0, size - _SAMPLE)):
                    file.seek(start)
                    digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
