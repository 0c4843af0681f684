"""The page: one HTML text with its style and script, in the report's look and with its grid."""

from __future__ import annotations

import json
from typing import Any

from ..report.page import content_hash


def page(about: dict[str, Any]) -> tuple[str, str]:
    """The page, and its content security policy. about: what `/models` answers."""
    script = f"window.about = {json.dumps(about)};"
    policy = f"default-src 'none'; script-src '{content_hash(script)}'; connect-src 'self'; base-uri 'none'"
    return f"<!DOCTYPE html><title>Explorer</title><script>{script}</script><h1>Explorer</h1>", policy
