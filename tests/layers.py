"""Checks that lower subpackages of transformers.interpretation never import higher ones: `python tests/layers.py`.

An import inside a function counts like any other. Exit status 1 and a line for each import that points upwards.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "transformers_files" / "interpretation"
LAYERS = (
    "errors",
    "models",
    "surgery",
    "prompts",
    "engine",
    "mapping",
    "readers",
    "vectors",
    "results",
    "runs",
    "measures",
    "control",
    "features",
    "report",
)
"""From the lowest to the highest; the modules beside them (api, selfie, …) stand above all."""
PROGRAMS = ("explorer", "selfie")
"""Packages that stand where those modules do."""


def main() -> int:
    """Print what points upwards; the exit status."""
    problems = [*upward_imports(PACKAGE), *unlisted(PACKAGE)]
    print(*problems, sep="\n", end="\n" * bool(problems))
    return 1 if problems else 0


def upward_imports(package: Path) -> Iterator[str]:
    """`file:line` of each import of a higher layer."""
    for path in sorted(package.rglob("*.py")):
        home = path.relative_to(package).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _targets(node, home):
                if _rank(target) > _rank(home):
                    where = f"{path}:{node.lineno}"
                    yield f"{where}: {'.'.join(home)} imports {'.'.join(target) or 'the top'}, which is higher"


def unlisted(package: Path) -> Iterator[str]:
    """Subpackages that have no layer."""
    for path in sorted(package.glob("*/__init__.py")):
        if path.parent.name not in (*LAYERS, *PROGRAMS):
            yield f"{path.parent} is in no layer: add it to {Path(__file__).name}"


def _rank(parts: tuple[str, ...]) -> int:
    return LAYERS.index(parts[0]) if parts and parts[0] in LAYERS else len(LAYERS)


def _targets(node: ast.AST, home: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Modules of the package that an import names, as parts below it."""
    prefix = ("transformers", "interpretation")
    if isinstance(node, ast.Import):
        names = [tuple(alias.name.split(".")) for alias in node.names]
        yield from (name[2:] for name in names if name[:2] == prefix)
    elif isinstance(node, ast.ImportFrom):
        module = tuple((node.module or "").split(".")) if node.module else ()
        if node.level:
            base = home[: len(home) - node.level + 1] + module
        elif module[:2] == prefix:
            base = module[2:]
        else:
            return
        yield from ([base] if base else [(alias.name,) for alias in node.names])


if __name__ == "__main__":
    sys.exit(main())
