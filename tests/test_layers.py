"""The check of the layers finds what it is there to find."""

from __future__ import annotations

import pytest
from layers import PACKAGE, unlisted, upward_imports


def test_no_import_points_upwards():
    assert list(upward_imports(PACKAGE)) == list(unlisted(PACKAGE)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from ..runs import grid",
        "from ..runs.grid import Plan",
        "from .. import api",
        "import transformers.interpretation.report.page",
        "from transformers.interpretation import interpret",
        "def later():\n    from ..results.record import Record",
    ],
)
def test_an_upward_import_is_found(tmp_path, line):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "decode.py").write_text(line + "\n")
    (found,) = upward_imports(tmp_path)
    assert "engine imports" in found


def test_a_downward_import_is_none(tmp_path):
    (tmp_path / "engine" / "kernels").mkdir(parents=True)
    (tmp_path / "engine" / "kernels" / "linear.py").write_text("from ...models.families import decoder\nimport torch\n")
    assert list(upward_imports(tmp_path)) == []


def test_a_subpackage_without_a_layer_is_found(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "__init__.py").touch()
    assert len(list(unlisted(tmp_path))) == 1
