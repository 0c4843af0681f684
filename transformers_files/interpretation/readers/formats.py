"""All formats in one place: what recognises one, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..models.hub import fetched, is_hub_id
from . import activation_oracle, selfie_adapter
from .reader import Reader, ReaderError


@dataclass(frozen=True)
class Format:
    """A kind of published reader."""

    name: str
    recognises: Callable[[Path], bool]
    """Whether a file or folder looks like one, without reading weights."""
    read: Callable[[Path], Reader]
    """Raises ReaderError."""


def _refusing(why: str) -> Callable[[Path], Reader]:
    def read(path: Path) -> Reader:
        raise ReaderError(f"reader {path}: {why}")

    return read


FORMATS = (
    Format("SelfIE adapter", selfie_adapter.recognises, selfie_adapter.read),
    Format("Activation Oracle", activation_oracle.recognises, activation_oracle.read),
    Format(
        "NLA",
        lambda path: (path / "nla_meta.yaml").is_file(),
        _refusing(
            "a natural-language autoencoder (nla_meta.yaml), which is a whole model; this version does not read its "
            "sidecar: give the verbalizer as --model and its base as --source-model, with --insert-layer 0"
        ),
    ),
    Format(
        "tuned lens",
        lambda path: (path / "params.pt").is_file() and (path / "config.json").is_file(),
        _refusing("a tuned lens, a map for logits and no reader; expected a reader's files (see mapping.lenses)"),
    ),
    Format(
        "pickled file",
        lambda path: path.suffix in (".pt", ".pth", ".bin", ".pkl"),
        _refusing(
            "a pickled file, which could run anything (a Jacobian lens, or a legacy adapter); expected safetensors"
        ),
    ),
)
"""In the order of trying. A new format is a module, and a line here."""


def find_reader(name: str | Path) -> Reader:
    """The reader in a file or folder, or by its hub id: owner/repository, or owner/repository/file.safetensors.

    Raises ReaderError for what is not there, and for what no format recognises.
    """
    path = _located(str(name))
    for one in FORMATS:
        if one.recognises(path):
            return one.read(path)
    found = path.suffix or "a file" if path.is_file() else "a folder"
    names = ", ".join(one.name for one in FORMATS[:2])
    raise ReaderError(f"reader {name}: found {found} of no known format; expected one of: {names}")


def _located(name: str) -> Path:
    if Path(name).exists():
        return Path(name)
    if not is_hub_id(name):
        raise ReaderError(f"reader {name}: there is no such file or folder")
    owner, repository, *inner = name.split("/")
    file = "/".join(inner)
    patterns = (file, str(PurePosixPath(file).parent / selfie_adapter.MEANS)) if file else ("adapter_*", "*.yaml")
    try:
        path = fetched(f"{owner}/{repository}", patterns) / file
    except FileNotFoundError as error:
        raise ReaderError(f"reader {name}: no such file or folder, and not from the hub: {error}") from error
    if not path.exists():
        raise ReaderError(f"reader {name}: the repository {owner}/{repository} has no {file}")
    return path
