"""What maps were fitted for, in the header of their file: how the vectors that they make are to be interpreted.

save_maps(maps, path, {FITTED_FOR: json.dumps({"interpretation_prompt": "describe_once", "insert_layer": 2})})
read_fitted_for(path)["insert_layer"]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .affine import MappingError

FITTED_FOR = "fitted for"
"""Its name in the header of a file."""
NAMES = (
    *("interpretation_prompt", "insert_layer", "replacing_mode", "overlay_strength"),
    *("guidance", "plausibility", "deep_gain"),
)
"""The settings that it may hold: the prompt's name or file, and fields of `InterpretationSettings`."""


def read_fitted_for(path: Path) -> dict[str, Any]:
    """The settings by name; none where the file says nothing.

    Raises:
        MappingError: the file is not safetensors, or says what is not understood.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata() or {}
        settings = json.loads(header.get(FITTED_FOR, "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise MappingError(f"mapping {path} does not say what it was fitted for: {error}") from error
    if not isinstance(settings, dict) or not settings.keys() <= set(NAMES):
        raise MappingError(f"mapping {path} was fitted for {settings}; known are {', '.join(NAMES)}")
    return settings
