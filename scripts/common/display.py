"""How the results of a run are shown in addition to the table."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers.interpretation.runs.preparation import Prepared


@dataclass(frozen=True)
class Display:
    """How results are shown in addition to the table."""

    report: Path | None
    no_report: bool
    show: str | None
    """Name of an example; "" is the first."""
    output: Path

    @property
    def page(self) -> Path:
        return self.report or self.output.with_suffix(".html")

    def check(self, inputs: Mapping[str, Path | None]) -> None:
        """Raise RequestError for what cannot be shown or written. `inputs`: what the run reads; see `check_apart`."""
        from transformers.interpretation.report.page import check_page
        from transformers.interpretation.runs.csv_writer import files_of
        from transformers.interpretation.runs.files import check_apart, check_writable
        from transformers.interpretation.runs.manifest import OutputError
        from transformers.interpretation.runs.preparation import RequestError

        packages = ["jinja2"] * (not self.no_report) + ["rich"] * (self.show is not None)
        problems = [
            f"the package {package} is not installed; run: python -m pip install {package} (or leave out the display)"
            for package in packages
            if importlib.util.find_spec(package) is None
        ]
        if not self.output.name:
            raise RequestError([f"{self.output} is a folder; name a file"])
        outputs = files_of(self.output) | ({} if self.no_report else {"the report": self.page})
        try:
            check_apart(outputs, inputs)
            if not self.no_report:
                check_writable(self.page)
                check_page(self.page)
        except OutputError as error:
            problems.append(str(error))
        if problems:
            raise RequestError(problems)

    def check_name(self, names: Sequence[str]) -> None:
        """Raise RequestError for a name that no example has."""
        from transformers.interpretation.runs.preparation import RequestError

        if self.show and self.show not in names:
            raise RequestError([f'no example is named "{self.show}"; the first are {", ".join(names[:5])}'])

    def present(self, prepared: Prepared, *, again: bool = False) -> str:
        """Write the report and print the grid, as asked for; return where results are.

        `again`: the table was finished earlier, so a report that is there already stays. Raises OutputError.
        """
        from transformers.interpretation.results.record import with_token_texts
        from transformers.interpretation.results.streaming import Examples, read_example, read_portion
        from transformers.interpretation.runs.manifest import OutputError

        tokenizer = prepared.outline.tokenizer
        if not self.no_report and not (again and self.report is None and self.page.exists()):
            from transformers.interpretation.report import write_page

            portion = read_portion(self.output)
            title, reading = title_of(prepared), prepared.settings.description
            records = with_token_texts(portion.records, tokenizer)
            try:
                self.page.parent.mkdir(parents=True, exist_ok=True)
                write_page(records, self.page, title=title, note=portion.note, reading=reading)
            except OSError as error:
                reason = f"cannot write the report {self.page}: {error.strerror or error}"
                raise OutputError(f"{self.output} is complete; {reason}") from None
        if self.show is not None:
            from transformers.interpretation.report import show

            first = Examples(0, 1)
            results = read_example(self.output, self.show) if self.show else read_portion(self.output, first).records
            show(with_token_texts(results, tokenizer))
        return str(self.output) if self.no_report else f"{self.output} (report: {self.page})"


def title_of(prepared: Prepared) -> str:
    """Whose embeddings are interpreted, and how."""
    if prepared.vectors is not None:
        return f"Interpretations of {prepared.vectors.file.path.name} by {Path(prepared.outline.name).name}"
    by = "" if prepared.source is None else f" by {Path(prepared.outline.name).name}"
    mapped = "" if prepared.maps is None else f", mapped by {prepared.maps.path.name}"
    return f"Interpretations of {Path(prepared.reader.name).name}{by}{mapped}"
