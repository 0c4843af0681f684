"""A tiny model and a folder to run the programs in."""

from __future__ import annotations

import pytest
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "short.json", SHORT_PROMPT)
    examples = [{"prompt": "Hi", "category": "a", "raw": True}, {"prompt": "-1", "raw": True, "answer": "x"}]
    write_json(tmp_path / "examples.json", {"examples": examples})
    return tmp_path
