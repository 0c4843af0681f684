"""What a run is asked to do: one declaration for each option."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

from transformers.interpretation.engine.sampling import Sampling
from transformers.interpretation.engine.settings import DEFAULTS
from transformers.interpretation.runs.request import RunRequest


def test_importing_it_imports_no_torch():
    code = (
        "import sys, transformers; before = 'torch' in sys.modules; import transformers.interpretation.runs.request; "
    )
    code += "sys.exit(('torch' in sys.modules) > before)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_it_has_all_settings_with_their_defaults():
    settings = {field.name: getattr(DEFAULTS, field.name) for field in fields(DEFAULTS) if field.name != "sampling"}
    settings |= {field.name: field.default for field in fields(Sampling)} | {"samples": 0}
    assert DEFAULTS.sampling is None
    assert {name: getattr(RunRequest, name) for name in settings} == settings
