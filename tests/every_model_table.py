"""What came out for every causal class, version by version, and the tables of the documents that say so.

python tests/every_model.py --store             # with each version: sweeps it and stores its outcomes
python tests/every_model_table.py --write       # puts the tables into transformers_files/README.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

HERE = Path(__file__).resolve().parent
STORED = HERE / "every_model.json"
"""By version, then by class: the outcome in a word or two."""
DOCUMENT = HERE.parent / "transformers_files" / "README.md"
BEGIN, END = "<!-- every causal class, by tests/every_model_table.py -->", "<!-- end of every causal class -->"
CHECKS = ("forward", "generate", "engine", "capture")
ABSENT = "–"

Outcomes = Mapping[str, Mapping[str, str]]


def outcome(record: Mapping[str, Any]) -> str:
    """Of a record of the sweep: "equal", "slower" (and equal), "refused", or which of the checks are."""
    if record["outcome"] == "equal":
        return "slower" if any(record.get(f"{check}: why") for check in CHECKS) else "equal"
    if record["outcome"] == "refused":
        refused = [check for check in CHECKS if record[check] == "refused"]
        return "refused" if len(refused) == len(CHECKS) else f"refused: {', '.join(refused)}"
    return str(record["outcome"])


def store(version: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Replace what is stored of a version."""
    stored = read() if STORED.exists() else {}
    stored = {**stored, version: {record["class"]: outcome(record) for record in records}}
    ordered = {version: dict(sorted(stored[version].items())) for version in sorted(stored, key=Version)}
    STORED.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def read() -> dict[str, dict[str, str]]:
    """What is stored."""
    return json.loads(STORED.read_text(encoding="utf-8"))


def tables(stored: Outcomes) -> str:
    """Markdown: how many of each outcome, and the classes that are not simply equal on every version that has them."""
    return f"{_counts(stored)}\n\n{_exceptions(stored)}"


def _counts(stored: Outcomes) -> str:
    everywhere = {name for outcomes in stored.values() for name in outcomes}
    kinds = ("equal", "slower", "refused", "not built", "different", "crashed")
    lines = ["| transformers | equal | of these slower | refused | not built | different, crashed | absent |"]
    lines.append("|---" * 7 + "|")
    for version, outcomes in stored.items():
        of = {kind: sum(one.startswith(kind) for one in outcomes.values()) for kind in kinds}
        wrong, absent = of["different"] + of["crashed"], len(everywhere) - len(outcomes)
        numbers = of["equal"] + of["slower"], of["slower"], of["refused"], of["not built"], wrong, absent
        lines.append(f"| {version} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def _exceptions(stored: Outcomes) -> str:
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in sorted({name for outcomes in stored.values() for name in outcomes}):
        cells = tuple(outcomes.get(name, ABSENT) for outcomes in stored.values())
        if set(cells) - {"equal", ABSENT}:
            alike.setdefault(cells, []).append(_short(name))
    lines = ["| | " + " | ".join(stored) + " |", "|---" * (len(stored) + 1) + "|"]
    for cells, names in sorted(alike.items(), key=lambda one: one[1]):
        lines.append(f"| {', '.join(names)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(name: str) -> str:
    """The class without the part of its name that says that it is causal."""
    for ending in ("ForCausalLM", "WithLMHeadModel", "LMHeadModel"):
        name = name.removesuffix(ending)
    return name


def written(document: str, stored: Outcomes) -> str:
    """The document with the tables between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{tables(stored)}\n{END}{after}"


def main() -> int:
    """Print the tables, or write them into the document."""
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), read()), encoding="utf-8")
    else:
        print(tables(read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
