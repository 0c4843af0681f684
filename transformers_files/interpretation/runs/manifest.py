"""What a run was asked to do, kept next to its output: `interpretations.csv.manifest.json`.

    {
      "format": 1,
      "settings": {"layers": "all", "model": "f3a9…", "examples": "77b2…", "versions": {"torch": "2.13.0", …}, …},
      "about": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "threads": 2, …},
      "plan": {"batch_size": 64, "chunk_cells": 256},
      "began": "2026-11-24T09:30:00",
      "complete": {"chunks": 2, "rows": 510, "failed": 0, "bytes": 123456, "crc32": 305419896}    (once the run is)
    }

A run is resumed only if its identity, here under "settings", is equal. What is noted under "about" may differ: names of
the same files, and the machine, which can change the last digits. The plan is what was resolved when the run began; a
resumed run takes it from here, and so it does the time, by which chat templates write the date: all prompts of a run
are of one day.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ..engine.settings import InterpretationSettings

FORMAT = 1
PACKAGE = Path(__file__).resolve().parent.parent
COMPUTING = ("surgery", "models", "prompts", "engine", "mapping", "readers", "vectors", "results", "runs")
"""The subpackages on which a run's results depend. Views, measures and the calls in memory are not among them."""
MANIFEST_SUFFIX = ".manifest.json"


class OutputError(Exception):
    """The output cannot be written, or is not this run's."""


@dataclass(frozen=True)
class Position:
    """How far an output has come: what its whole chunks hold together."""

    chunks: int = 0
    rows: int = 0
    failed: int = 0
    """Rows without an interpretation; their status says why."""
    bytes: int = 0
    crc32: int = 0
    """Checksum of all bytes up to here."""

    @classmethod
    def from_json(cls, content: Any) -> Position:
        """Raises ValueError, TypeError or KeyError for anything else than a position."""
        numbers = {field.name: content[field.name] for field in fields(cls)}
        if not all(type(number) is int and number >= 0 for number in numbers.values()):
            raise ValueError(f"not a position: {content}")
        return cls(**numbers)


@dataclass(frozen=True)
class Manifest:
    """See the module's docstring. All values are JSON."""

    identity: Mapping[str, Any]
    """What a resumed run must share; "settings" in the file."""
    about: Mapping[str, Any]
    plan: Mapping[str, int]
    complete: Position | None = None
    began: str | None = None
    """Local time in ISO 8601."""

    @property
    def key(self) -> str:
        """Equal for runs whose chunks are interchangeable."""
        return hashlib.sha256(json.dumps([self.identity, self.plan], sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, identity: Mapping[str, Any]) -> list[str]:
        """`name: was …, now …` for everything that is not the same."""
        return list(_differences(self.identity, identity))

    def changes(self, about: Mapping[str, Any]) -> list[str]:
        """The same as `differences` for what may differ, except for names."""
        names = ("model", "source model", "examples", "vectors", "mapping", "reader adapter", "reader")
        then, now = ({key: one[key] for key in one if key not in names} for one in (self.about, about))
        return list(_differences(then, now))

    def write(self, output: Path) -> None:
        """Write it next to the output: whole or not at all."""
        path = manifest_path(output)
        temporary = path.with_name(path.name + ".tmp")
        noted = {"settings" if key == "identity" else key: value for key, value in asdict(self).items()}
        content = {"format": FORMAT} | {key: value for key, value in noted.items() if value is not None}
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output lies."""
    return output.with_name(output.name + MANIFEST_SUFFIX)


def read_manifest(output: Path) -> Manifest | None:
    """The manifest next to an output, or None where there is none. Raises OutputError for one that cannot be used."""
    path = manifest_path(output)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise OutputError(f"{path} has format {content['format']}, this version reads {FORMAT}")
        complete = content.get("complete")
        plan = {key: int(content["plan"][key]) for key in ("batch_size", "chunk_cells")}
        return Manifest(
            identity=dict(content["settings"]),
            about=dict(content["about"]),
            plan=plan,
            complete=None if complete is None else Position.from_json(complete),
            began=None if content.get("began") is None else datetime.fromisoformat(content["began"]).isoformat(),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutputError(f"{path} is not a manifest of a run: {error!r}") from None


def package_fingerprint(package: Path = PACKAGE) -> str:
    """A digest of the code that computes results: results of two versions of it should not share a file."""
    digest = hashlib.sha256()
    for path in sorted(path for name in COMPUTING for path in (package / name).rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def tokenizer_beside(output: Path) -> Any | None:
    """The tokenizer of the model that an output comes from, if the manifest names one that is on this machine."""
    from transformers import AutoTokenizer

    try:
        manifest = read_manifest(Path(output))
        if manifest is None:
            return None
        return AutoTokenizer.from_pretrained(manifest.about["model"], local_files_only=True, trust_remote_code=False)
    except (OutputError, KeyError, OSError, ValueError):
        return None


def settings_beside(output: Path) -> InterpretationSettings | None:
    """How the interpretations of an output were made, if there is a manifest that says so."""
    try:
        manifest = read_manifest(Path(output))
        return None if manifest is None else InterpretationSettings.of(manifest.identity)
    except (OutputError, KeyError, TypeError, ValueError):
        return None


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key} ")
        elif before != after:
            yield f"{prefix}{key}: was {_shown(before)}, now {_shown(after)}"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
