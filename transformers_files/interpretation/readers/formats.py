"""All formats in one place: what recognises one, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    """The reader in a file or folder. Raises ReaderError for what no format recognises."""
    path = Path(name)
    if not path.exists():
        raise ReaderError(f"reader {name}: there is no such file or folder")
    for one in FORMATS:
        if one.recognises(path):
            return one.read(path)
    found = path.suffix or "a file" if path.is_file() else "a folder"
    names = ", ".join(one.name for one in FORMATS[:2])
    raise ReaderError(f"reader {name}: found {found} of no known format; expected one of: {names}")
