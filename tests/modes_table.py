"""The table of decoding modes, from what the last test runs of all versions found: `python tests/modes_table.py`."""

from __future__ import annotations

import json
from pathlib import Path

OUTCOMES = Path(__file__).resolve().parent.parent / "runs" / "decoding_modes"


def main() -> None:
    found = {path.stem: json.loads(path.read_text()) for path in OUTCOMES.glob("*.json")}
    versions = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    modes = dict.fromkeys(mode for version in versions for mode in found[version])
    print("| mode | " + " | ".join(versions) + " |")
    print("|---|" + "---|" * len(versions))
    for mode in modes:
        print(f"| {mode} | " + " | ".join(found[version].get(mode, "?") for version in versions) + " |")


if __name__ == "__main__":
    main()
