"""The notebook runs from top to bottom, and is stored with the outputs of such a run."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def notebook():
    return nbformat.read(SCRIPTS / "interpretation_demo.ipynb", as_version=4)


def outputs(notebook):
    """Per code cell, its outputs as (kind, text)."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append([(o.get("name", o.output_type), o.get("text") or str(o.get("data"))) for o in cell.outputs])
    return found


def test_every_cell_runs(notebook, embedded_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other are slower than one beside other work
    stored = outputs(notebook)
    # An error in a cell is an error here; the working folder is that of a reader who opens the notebook where it lies.
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(SCRIPTS)}}
    ).execute()
    executed = outputs(notebook)
    assert [[kind for kind, _ in cell] for cell in executed] == [[kind for kind, _ in cell] for cell in stored]
    by_hand = next(text for cell in executed for _, text in cell if text.startswith("with the embedding"))
    assert re.search(r"with the embedding: +' Tokyo", by_hand)
    (frame,) = [text for cell in executed for _, text in cell if "<iframe" in text]
    assert "Tokyo" in frame


def test_it_is_stored_as_it_ran(notebook):
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    text = "\n".join(text for cell in outputs(notebook) for _, text in cell)
    assert "Tokyo" in text and "<iframe" in text and "image/png" in text
    assert not re.search(r"/(root|home|tmp|work|Users|usr)/|site-packages", text)
    assert {kind for cell in outputs(notebook) for kind, _ in cell} <= {"stdout", "execute_result", "display_data"}
    assert (SCRIPTS / "interpretation_demo.ipynb").stat().st_size < 400_000
