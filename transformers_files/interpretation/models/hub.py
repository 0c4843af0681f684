"""Folders by their path, or by their id on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def is_hub_id(name: str) -> bool:
    """Whether a name could be `owner/repository`, or `owner/repository/path/of/a.file`, and is no path here."""
    parts = name.split("/")
    local = name.startswith((".", "/", "~")) or Path(name).exists()
    return not local and len(parts) >= 2 and all(parts)


def fetched(name: str, patterns: Sequence[str]) -> Path:
    """The folder of a repository's newest revision with the files of these patterns; from the cache where there is no
    network.

    name: `owner/repository`. Raises FileNotFoundError with a reason in one line.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # whatever the hub, the network or the name's form give
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise FileNotFoundError(reason[0][:200]) from error
