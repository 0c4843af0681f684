"""What a run's identity is made of."""

from __future__ import annotations

import shutil

import pytest
from transformers.interpretation.runs.manifest import COMPUTING, PACKAGE, package_fingerprint

VIEWS = ("errors", "measures", "features", "report", "explorer", "selfie", "control")
"""Subpackages on which no result depends."""


@pytest.fixture
def package(tmp_path):
    return shutil.copytree(PACKAGE, tmp_path / "interpretation", ignore=shutil.ignore_patterns("__pycache__"))


def test_every_subpackage_computes_or_is_known_not_to():
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found == {*COMPUTING, *VIEWS}


@pytest.mark.parametrize("path", ["engine/decode.py", "engine/kernels/linear.py", "models/kv_cache.py"])
def test_changed_code_that_computes_is_another_version(package, path):
    before = package_fingerprint(package)
    with open(package / path, "a") as file:
        file.write("# changed\n")
    assert package_fingerprint(package) != before


@pytest.mark.parametrize("path", ["selfie/wrappers.py", "report/page.py", "measures/recovery.py"])
def test_a_docstring_elsewhere_is_not(package, path):
    before = package_fingerprint(package)
    with open(package / path, "a") as file:
        file.write("# changed\n")
    assert package_fingerprint(package) == before == package_fingerprint()
