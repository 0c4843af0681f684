"""Errors that name everything that is wrong at once, so that one attempt shows all that has to be put right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ProblemsError(ValueError):
    """Something that cannot be used. `problems` lists everything that is wrong with it, one line each."""

    def __init__(self, problems: Sequence[str], path: str | Path | None = None) -> None:
        """path: of the file that has the problems; each line begins with it."""
        where = "" if path is None else f"{path}: "
        self.problems = tuple(where + " ".join(problem.splitlines()) for problem in problems)
        super().__init__("\n".join(self.problems))


def problems_of(error: Exception) -> tuple[str, ...]:
    """One line for each thing that is wrong."""
    return error.problems if isinstance(error, ProblemsError) else (" ".join(str(error).splitlines()),)
