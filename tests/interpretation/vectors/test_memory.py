"""Reading a file a few rows at a time: memory does not grow with its number of rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers.interpretation.vectors.formats import open_vectors

FEW, MANY, HIDDEN, AT_ONCE = 1_000, 60_000, 512, 256
ALLOWED = 24
"""MB, of the 120 that the larger file has."""


def write(path: Path, n: int) -> Path:
    rows = np.random.default_rng(0).normal(size=(n, HIDDEN)).astype(np.float32)
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".safetensors":
        save_file({"v": torch.from_numpy(rows)}, path)
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), HIDDEN)
        pq.write_table(pa.table({"activation_vector": lists}), path, row_group_size=n, compression="none")
    return path


def peak(path: Path) -> float:
    """MB that this process has needed so far, after reading all of a file."""
    file = open_vectors(path)
    for start in range(0, file.n, AT_ONCE):
        assert len(file.rows(start, min(start + AT_ONCE, file.n)))
    # Not getrusage, which begins with the memory of the process that this one was forked from.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_reading_all_of_a_file_holds_a_few_rows(tmp_path, suffix):
    files = [str(write(tmp_path / f"{n}{suffix}", n)) for n in (FEW, MANY)]
    told = subprocess.run([sys.executable, __file__, *files], check=True, capture_output=True, text=True)
    few, many = map(float, told.stdout.split())
    assert many - few < ALLOWED


if __name__ == "__main__":
    print(*(peak(Path(path)) for path in sys.argv[1:]))
