"""The page: one HTML text with its style and script, in the report's look and with its grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..report.page import asset, content_hash, palette_style, render, script_safe
from ..report.palette import STEPS
from ..results.calibration import BUILT_IN_CALIBRATION

_HERE = Path(__file__).parent
_SHARED = ("cells.js", "grid.js", "table.js")
"""With the report."""
_SCRIPTS = (
    "client.js",
    "form.js",
    "chips.js",
    "reading.js",
    "choosing.js",
    "board.js",
    "trials.js",
    "detail.js",
    "files.js",
    "explorer.js",
)
SCALE = 100
"""The relevancy, in thousandths, that gets the strongest colour at first; it grows with what comes."""


def page(about: dict[str, Any]) -> tuple[str, str]:
    """The page, and its content security policy. about: what `/models` answers."""
    style = palette_style() + asset("page.css") + _read("explorer.css")
    script = asset(*_SHARED) + "".join(map(_read, _SCRIPTS))
    levels = sorted({round(1000 * share) for share in BUILT_IN_CALIBRATION.shares})[1:]
    content = render(
        "page.html.j2",
        folder=_HERE,
        about=about,
        model=Path(about["model"]).name,
        levels=levels,
        style=style,
        script=script,
        data=script_safe(json.dumps({"scale": SCALE, "steps": STEPS, "about": about})),
    )
    policy = (
        f"default-src 'none'; script-src '{content_hash(script)}'; style-src '{content_hash(style)}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    return content, policy


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
