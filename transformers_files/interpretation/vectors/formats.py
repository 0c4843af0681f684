"""Which format a file of vectors has, by its name.

file = open_vectors(Path("vectors.safetensors"), tensor="W_dec")
"""

from __future__ import annotations

from pathlib import Path

from .digest import sampled_digest
from .names import Listed, NameLines, Numbered
from .npy_rows import open_npy
from .parquet_rows import ParquetNames, has_column, open_parquet
from .sae_lens import CONFIG, DECODER, WEIGHTS, downloaded, open_sae
from .safetensors_rows import NamedTensors, open_safetensors
from .vector_file import Names, Origin, Rows, VectorFile, VectorsError

COLUMN = "activation_vector"
_FILES = (".safetensors", ".npy", ".parquet")
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def open_vectors(
    path: Path, *, tensor: str | None = None, column: str | None = None, names: str | None = None
) -> VectorFile:
    """Open a file of vectors; of a large one only a sample of blocks is read.

    path: `.safetensors`, `.npy`, `.parquet`, or the folder of a SAE as SAELens saves it, here or at the Hugging Face
    hub (`owner/repository/folder`).
    tensor: of a safetensors file, which; None: the only one with rows, or each where every one is a vector.
    column: of a Parquet file; None: `activation_vector`. names: a text file with a name per line, or a column of the
    Parquet file; None: the names of tensors that are a vector each, else vector 0, vector 1, …
    Raises VectorsError.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        if suffix in (*_FILES, *_PICKLED):
            raise VectorsError(f"there is no {path}")
        path = downloaded(path)
    if tensor is not None and suffix != ".safetensors":
        raise VectorsError(f"{path} is no safetensors file: leave out --tensor")
    if column is not None and suffix != ".parquet":
        raise VectorsError(f"{path} is no Parquet file: leave out --vector-column")
    content, files, what, origin = _open(path, suffix, tensor, column or COLUMN)
    if content.n == 0 or content.hidden == 0:
        raise VectorsError(f"{path}, {what}: no vectors, {content.n} × {content.hidden} numbers")
    naming = _names(path, content, names)
    if isinstance(naming, NameLines) and naming.n != content.n:
        raise VectorsError(f"names {naming.path}: {naming.n} names for the {content.n} rows of {path}")
    return VectorFile(path, what, content, naming, sampled_digest(*files), origin)


def _open(
    path: Path, suffix: str, tensor: str | None, column: str
) -> tuple[Rows, tuple[Path, ...], str, Origin | None]:
    """The vectors, the files that they are in, which of the contents they are, and where they come from."""
    if path.is_dir():
        decoder, origin = open_sae(path)
        return decoder, (path / CONFIG, path / WEIGHTS), f"tensor {DECODER}", origin
    if suffix == ".safetensors":
        found = open_safetensors(path, tensor)
        what = f"{found.n} tensors" if isinstance(found, NamedTensors) else f"tensor {found.name}"
        return found, (path,), what, None
    if suffix == ".npy":
        return open_npy(path), (path,), "array", None
    if suffix == ".parquet":
        return open_parquet(path, column), (path,), f"column {column}", None
    if suffix in _PICKLED:
        raise VectorsError(f"{path} is pickled, and could run code: save its tensor as safetensors or .npy")
    raise VectorsError(f"{path} must be .safetensors, .npy, .parquet or the folder of a SAE")


def _names(path: Path, content: Rows, names: str | None) -> Names:
    if names is not None:
        if path.suffix.lower() == ".parquet" and has_column(path, names):
            return ParquetNames(path, names)
        return NameLines.open(Path(names))
    return Listed(content.keys) if isinstance(content, NamedTensors) else Numbered()
