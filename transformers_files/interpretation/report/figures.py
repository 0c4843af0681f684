"""Figures for papers, drawn by matplotlib, which users install if they want them: `pip install matplotlib`.

Every function gives a `matplotlib.figure.Figure`; `figure.savefig("grid.pdf")` writes PNG, SVG or PDF by the ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..models.layer_spec import SAME
from ..results.record import Record
from .grid import ExampleGrid, PromptGrid, examples_of, find_example, mean_relevancy, names_answer, relevancy_scale
from .palette import ink, ramp, step_of
from .strings import inert, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_INCHES = (1.25, 0.2)
_CELL_LETTERS = 22
_FONT_SIZE = 6


def grid_figure(records: Sequence[Record], *, example: str | None = None, reading: str | None = None) -> Figure:
    """The grid of one example (by name; the first where none is named) under one interpretation prompt (likewise).

    Raises ValueError for a name that is not there, ImportError without matplotlib.
    """
    figure_class = _figure_class()
    chosen = find_example(examples_of(records), example)
    shown = _find_reading(chosen, reading)
    scale = relevancy_scale(records)
    colours = ramp(dark=False)
    columns, rows = len(chosen.columns), len(chosen.layers)
    figure = figure_class(figsize=(0.9 + columns * _CELL_INCHES[0], 0.9 + rows * _CELL_INCHES[1]), layout="constrained")
    axes = figure.add_subplot()
    for y, layer in enumerate(chosen.layers):
        for x, column in enumerate(chosen.columns):
            record = shown.records.get((layer, column.token_idx))
            if record is None:
                continue
            mean = mean_relevancy(record)
            colour = colours[step_of(mean, scale)] if mean is not None else "#eeeeee"
            box = axes.add_patch(_rectangle(x, y, colour))
            text = axes.text(x + 0.04, y + 0.5, _cell_text(record), va="center", size=_FONT_SIZE, color=ink(colour))
            text.set_parse_math(False)
            text.set_clip_path(box)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_ylabel("layer", size=_FONT_SIZE)
    axes.set_xticks(
        [x + 0.5 for x in range(columns)], [f"{c.token_idx} {c.text}"[:_CELL_LETTERS] for c in chosen.columns]
    )
    axes.set_yticks([y + 0.5 for y in range(rows)], ["–" if layer is None else str(layer) for layer in chosen.layers])
    axes.tick_params(length=0, labelsize=_FONT_SIZE)
    axes.xaxis.tick_top()
    for label, column in zip(axes.get_xticklabels(), chosen.columns):
        label.set_fontstyle("italic" if column.source == "output" else "normal")
    _plain_text(axes)
    _colour_bar(figure, axes, colours, scale)
    return figure


def answers_figure(records: Sequence[Record]) -> Figure:
    """Per layer, the share of examples whose answer some interpretation of a prompt token names (as whole words).

    One line per interpretation prompt; `answer_shares` has its numbers. Raises ValueError where no example has an
    answer, ImportError without matplotlib.
    """
    figure_class = _figure_class()
    shares = answer_shares(records)
    if not shares:
        raise ValueError('no example has an "answer", so there is nothing to count')
    figure = figure_class(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    for label, (style, points) in zip(shares, zip(("-o", "--s", "-.^", ":D") * len(shares), shares.values())):
        name = inert(label)[: 2 * _CELL_LETTERS]
        axes.plot(list(points), list(points.values()), style, markersize=3, label=name, clip_on=False)
    axes.set(ylim=(0, 1), xlabel="layer", ylabel="share of examples named")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _plain_text(axes)
    return figure


def answer_shares(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Label of an interpretation prompt → layer → share of examples with an answer that are named at that layer.

    An example counts at a layer where at least one of its prompt tokens was interpreted there.
    """
    verdicts: dict[str, dict[int, list[bool]]] = {}
    for example in examples_of(records):
        for reading in example.readings if example.answer else ():
            named: dict[int, bool] = {}
            for record in reading.records.values():
                if record.layer_idx is not None and record.kind != "output" and record.has_interpretation:
                    named[record.layer_idx] = named.get(record.layer_idx, False) or names_answer(record)
            for layer, verdict in named.items():
                verdicts.setdefault(reading.label, {}).setdefault(layer, []).append(verdict)
    return {
        label: {layer: sum(by_layer[layer]) / len(by_layer[layer]) for layer in sorted(by_layer)}
        for label, by_layer in verdicts.items()
    }


def sweep_figure(records: Sequence[Record]) -> Figure:
    """Source layers × insert layers: the share of interpretations that name their example's answer as whole words.

    Where no record has an answer, their mean relevancy. Raises ValueError where no embedding of a layer was inserted at
    a single layer, ImportError without matplotlib.
    """
    figure_class = _figure_class()
    label, values = sweep_values(records)
    if not values:
        raise ValueError("no embedding of a layer was inserted at a single layer, so there is nothing to sweep over")
    colours, scale = ramp(dark=False), min(1.0, max(0.1, *values.values()))
    sources, targets = (sorted({pair[side] for pair in values}) for side in (0, 1))
    size = (1.2 + 0.3 * len(targets), 0.8 + 0.22 * len(sources))
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for (source, target), value in values.items():
        x, y, colour = targets.index(target), sources.index(source), colours[step_of(value, scale)]
        axes.add_patch(_rectangle(x, y, colour))
        axes.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", size=_FONT_SIZE, color=ink(colour))
    axes.set(xlim=(0, len(targets)), ylim=(0, len(sources)))  # the deepest source layer on top, as in the grid
    axes.set_xlabel("inserted at the input of layer", size=_FONT_SIZE)
    axes.set_ylabel("embedding of layer", size=_FONT_SIZE)
    axes.set_xticks([x + 0.5 for x in range(len(targets))], [str(layer) for layer in targets])
    axes.set_yticks([y + 0.5 for y in range(len(sources))], [str(layer) for layer in sources])
    axes.tick_params(length=0, labelsize=_FONT_SIZE)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, colours, scale, f"{label}, %")
    return figure


def sweep_values(records: Sequence[Record]) -> tuple[str, dict[tuple[int, int], float]]:
    """What is averaged, and (source layer, insert layer) → its mean over the interpretations without an error."""
    records = [record for record in records if record.has_interpretation and record.layer_idx is not None]
    places = [(record, record.layer_idx if record.insert_layer == SAME else record.insert_layer) for record in records]
    answered = any(record.answer for record in records)
    found: dict[tuple[int, int], list[float]] = {}
    for record, target in places:
        value = float(names_answer(record)) if answered else mean_relevancy(record)
        source = record.layer_idx
        if source is None or not isinstance(target, int) or value is None or (answered and not record.answer):
            continue
        found.setdefault((source, target), []).append(value)
    label = "interpretations that name the answer" if answered else "mean relevancy"
    return label, {pair: fmean(values) for pair, values in found.items()}


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib: pip install matplotlib") from None
    return Figure


def _find_reading(example: ExampleGrid, label: str | None) -> PromptGrid:
    for reading in example.readings:
        if label in (None, reading.label):
            return reading
    labels = ", ".join(reading.label for reading in example.readings)
    raise ValueError(f"example {example.name} has no interpretation prompt {label!r}; it has: {labels}")


def _rectangle(x: int, y: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5)


def _cell_text(record: Record) -> str:
    line = one_line(record.interpretation_text.strip() if record.has_interpretation else record.status)
    return line if len(line) <= _CELL_LETTERS else line[: _CELL_LETTERS - 1] + "…"


def _plain_text(axes: Any) -> None:
    """Take $ for what it is: labels of unknown origin are no formulas."""
    legend = axes.get_legend()
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), *(legend.get_texts() if legend else ())]:
        text.set_parse_math(False)


def _colour_bar(figure: Any, axes: Any, colours: Sequence[str], scale: float, label: str = "mean relevancy") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    top = 100 * scale if label.endswith("%") else scale
    shades = ScalarMappable(Normalize(0, top), ListedColormap(list(colours)))
    bar = figure.colorbar(shades, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label(label, size=_FONT_SIZE)
    bar.ax.tick_params(labelsize=_FONT_SIZE)
    bar.outline.set_visible(False)
