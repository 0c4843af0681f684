"""The grid of one example in a terminal, within its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..results.calibration import BUILT_IN_CALIBRATION, Calibration
from ..results.record import Record
from .grid import Column, ExampleGrid, PromptGrid, examples_of, find_example, mean_relevancy, relevancy_scale
from .palette import ink, ramp, step_of
from .strings import inert, one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_NARROWEST = 14
_WIDEST = 32
_LAYER_WIDTH = 5
_COLOURS = ramp(dark=False)


_HIDDEN = "·"


def show(
    records: Sequence[Record],
    *,
    example: str | None = None,
    console: Console | None = None,
    min_trust: float = 0.0,
    calibration: Calibration = BUILT_IN_CALIBRATION,
) -> None:
    """Print every reading of one example (by name; the first where none is named).

    Tokens that do not fit beside each other follow below; vectors, which have no layers, have a line each. The darker a
    cell, the more its words depend on the embedding; without colours the mean relevancy stands in front (".4"). Of
    cells whose trust is below `min_trust` only a dot is left.
    Raises ValueError for a name that no example has.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    chosen = find_example(examples_of(records), example)
    scale = relevancy_scale(records)
    name, prompt, output = (one_line(text) for text in (chosen.name, chosen.prompt, chosen.prompt_output))
    heading = Text.assemble((name, "bold"), "  ", prompt, " ", (output, "italic"))
    _print(console, heading)
    for reading in chosen.readings:
        if min_trust > 0:
            reading = _without_the_untrusted(reading, min_trust, calibration)
        _print(console, Text(f"{one_line(reading.label)}, inserted at {reading.inserted_at}", style="dim"))
        if chosen.layers == (None,):
            _print(console, _list(console, chosen, reading, scale))
            continue
        for columns in _blocks(chosen.columns, console.width):
            _print(console, _block(console, chosen, reading, columns, scale))
    _print(console, _legend(console, scale))
    if min_trust > 0:
        _print(console, Text(f"{_HIDDEN} trust below {min_trust:g}", style="dim"))


def _without_the_untrusted(reading: PromptGrid, min_trust: float, calibration: Calibration) -> PromptGrid:
    shares = {cell: calibration.trust(record.interpretation_weights) for cell, record in reading.records.items()}
    records = {
        cell: record
        if not record.has_interpretation or (shares[cell] or 0.0) >= min_trust
        else replace(record, interpretation_text=_HIDDEN, interpretation_weights=())
        for cell, record in reading.records.items()
    }
    return replace(reading, records=records)


def _blocks(columns: Sequence[Column], width: int) -> list[Sequence[Column]]:
    """The columns in groups of equal size that fit the width."""
    fitting = max(1, (width - _LAYER_WIDTH) // (_NARROWEST + 1))
    n_blocks = -(-len(columns) // fitting)
    size = -(-len(columns) // n_blocks)
    return [columns[start : start + size] for start in range(0, len(columns), size)]


def _block(
    console: Console, example: ExampleGrid, reading: PromptGrid, columns: Sequence[Column], scale: float
) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    cell_width = max(1, min(_WIDEST, (console.width - _LAYER_WIDTH) // len(columns) - 1))
    cell = _coloured_cell if console.color_system else _numbered_cell
    table = Table(box=None, padding=(0, 1, 0, 0), collapse_padding=True, pad_edge=False)
    table.add_column(Text("layer", style="dim"), justify="right", width=_LAYER_WIDTH, no_wrap=True)
    for column in columns:
        style = "bold italic" if column.source == "output" else "bold"
        heading = Text.assemble((f"{column.token_idx} ", "dim"), (inert(column.text), style))
        table.add_column(heading, width=cell_width, no_wrap=True, overflow="ellipsis")
    for layer in example.layers:
        records = [reading.records.get((layer, column.token_idx)) for column in columns]
        table.add_row(
            Text(str(layer), style="dim"),
            *(cell(record, cell_width, scale) for record in records),
        )
    return table


def _list(console: Console, example: ExampleGrid, reading: PromptGrid, scale: float) -> RenderableType:
    """Vectors below each other: there are many, and their names say more than a column's heading can hold."""
    from rich.table import Table
    from rich.text import Text

    names = [Text(inert(column.text), style="bold") for column in example.columns]
    name_width = min(max(name.cell_len for name in names), console.width // 3)
    cell_width = max(1, console.width - name_width - _LAYER_WIDTH - 2)
    cell = _coloured_cell if console.color_system else _numbered_cell
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for width, justify in ((_LAYER_WIDTH, "right"), (name_width, "left"), (cell_width, "left")):
        table.add_column(width=width, justify=justify, no_wrap=True, overflow="ellipsis")
    for column, name in zip(example.columns, names):
        record = reading.records.get((None, column.token_idx))
        table.add_row(Text(str(column.token_idx), style="dim"), name, cell(record, cell_width, scale))
    return table


def _coloured_cell(record: Record | None, width: int, scale: float) -> Text:
    text = _cell(record, width)
    if record is not None and record.has_interpretation:
        text.stylize(_style(step_of(mean_relevancy(record) or 0.0, scale)))
    return text


def _numbered_cell(record: Record | None, width: int, scale: float) -> Text:
    from rich.text import Text

    mean = mean_relevancy(record) if record is not None else None
    number = "" if mean is None else f"{mean:.1f} ".removeprefix("0")
    return Text(number) + _cell(record, width - len(number))


def _cell(record: Record | None, width: int) -> Text:
    from rich.text import Text

    if record is None:
        return Text("")
    if not record.has_interpretation:
        return Text(one_line(record.status), style="red")
    text = Text(one_line(record.interpretation_text.strip()))
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _legend(console: Console, scale: float) -> Text:
    from rich.text import Text

    if not console.color_system:
        return Text("in front of each interpretation: its mean relevancy")
    swatches = [("  ", _style(step)) for step in range(0, len(_COLOURS), 4)]
    return Text.assemble(("mean relevancy 0 ", "dim"), *swatches, (f" {scale:.1f}", "dim"))


def _style(step: int) -> str:
    colour = _COLOURS[step]
    return f"{ink(colour)} on {colour}"


def _print(console: Console, content: RenderableType) -> None:
    """Print; what the terminal's encoding lacks becomes a question mark."""
    if console.encoding.startswith("utf"):
        console.print(content)
        return
    with console.capture() as capture:
        console.print(content)
    encoding = console.encoding
    console.file.write(capture.get().encode(encoding, "replace").decode(encoding))
