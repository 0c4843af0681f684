"""Tables and figures of what evaluate_interpretations.py has measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.evaluation_echoes import echoes_text
from common.evaluation_patching import two_steps_text
from common.evaluation_roundtrip import roundtrip_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COVERAGES_SHOWN = (1.0, 0.5, 0.25, 0.1)

LENSES = ("logit", "tuned", "jacobian")
SECTIONS = {
    "answer recovery": (
        *("net", "named", "by other", "by random"),
        *(f"{kind} lens top-{best}" for kind in LENSES for best in (1, 10)),
        "own layer",
    ),
    "next token, identity prompt": ("precision", "surprisal", "patchscopes surprisal"),
    "entity description": ("net", "named", "by other"),
    "faithfulness of relevancy": tuple(
        f"{relevancy}: {name}"
        for relevancy in ("high", "low")
        for name in ("with paraphrase", "with other", "difference")
    ),
    **{
        f"privileged, {what}": ("net", "named", "by other", "by shuffled")
        for what in ("known facts", "persons' names", "persons' sentences")
    },
    "attributes of subjects": ("net", "named", "by other", "linear probe"),
}
"""Measure → its columns in the table; columns that no row has are left out."""

OWN_WAY = {"attributes of subjects": "questions of their own, each state at its own layer"}
"""Measures that do not use the interpretation prompt."""


def tables(measured: dict[str, Any]) -> list[str]:
    """A table per measure, with intervals, one line per layer."""
    how = f"{measured['interpretation prompt']['name']} at layer {measured['settings']['insert_layer']}"
    by_layer = [
        _table(f"{title}, {measured['half']} half, {OWN_WAY.get(title, how)}", measured[title], columns)
        for title, columns in SECTIONS.items()
        if title in measured
    ]
    trust = [_trust_table(measured["trust"], f"{measured['half']} half, {how}")] if "trust" in measured else []
    learned = [_learned(measured["invented persons"])] if "invented persons" in measured else []
    echoes = [echoes_text(measured["echoes"])] if "echoes" in measured else []
    trip = [roundtrip_text(measured["round trip"])] if "round trip" in measured else []
    steps = [two_steps_text(measured["two steps"])] if "two steps" in measured else []
    return by_layer + trust + learned + echoes + trip + steps


def _learned(persons: dict[str, Any]) -> str:
    return (
        f"{persons['attributes']} attributes of invented persons: {persons['learned']:.0%} learned by the tuned copy, "
        f"{persons['completed by the untouched model']:.0%} completed by the untouched model"
    )


def _trust_table(section: dict[str, Any], how: str) -> str:
    areas = ", ".join(
        f"{half} {area:.2f}" if area is not None else f"{half} –"
        for half, area in section["area under the ROC curve"].items()
    )
    lines = [f"trust, {how} (area under the ROC curve: {areas})", f"{'coverage':>9}{'right':>21}"]
    for coverage in COVERAGES_SHOWN:
        label = f"{coverage:.0%}"
        lines.append(f"{label:>9}{shown('right', section['precision by coverage'][label]):>21}")
    lines.append(f"{'trust':>9}{'right':>21}{'interpretations':>17}")
    for step in section["steps"]:
        lines.append(f"{step['calibrated']:>9.1%}{shown('right', step['right']):>21}{step['interpretations']:>17}")
    return "\n".join(lines)


def _table(title: str, section: dict[str, Any], columns: Sequence[str]) -> str:
    rows = [*section["layers"].items(), *section.get("any layer", {}).items()]
    rows += [("text only", section["text only"])] if "text only" in section else []
    columns = [name for name in columns if any(name in shares for _, shares in rows)]
    width = max([19, *(len(name) + 2 for name in columns)])
    lines = [title, f"{'layer':>9}" + "".join(f"{name:>{width}}" for name in columns)]
    for label, shares in rows:
        cells = [shown(name, shares[name]) if name in shares else "" for name in columns]
        lines.append(f"{label:>9}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)


def shown(name: str, share: dict[str, float]) -> str:
    """A share in percent, a small one with a decimal; surprisal in nats."""
    form = {"surprisal": ".1f", "patchscopes surprisal": ".1f", "right": ".1%"}.get(name, ".0%")
    return f"{share['value']:{form}} [{share['low']:{form}}, {share['high']:{form}}]"


def draw(measured: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """The figures of answer recovery and of trust, where they can be drawn; returns their places."""
    if not {"answer recovery", "trust"} & measured.keys():
        return []
    try:
        from matplotlib.figure import Figure
    except ImportError:
        if arguments.figure is not None:
            print("no figure: it needs matplotlib; run: python -m pip install matplotlib", file=sys.stderr)
        return []
    recovery, trust = figures(arguments).values()
    drawn = []
    if "answer recovery" in measured:
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        recovery_figure(figure, measured["answer recovery"], measured["known facts"])
        figure.savefig(recovery, dpi=150)
        drawn.append(str(recovery))
    if "trust" in measured:
        figure = Figure(figsize=(5, 3), layout="constrained")
        trust_figure(figure, measured["trust"])
        figure.savefig(trust, dpi=150)
        drawn.append(str(trust))
    return drawn


def figures(arguments: argparse.Namespace) -> dict[str, Path]:
    """Where the figures go, by what they are called: beside the output, unless another place is named."""
    place = arguments.figure or arguments.output.with_suffix(".png")
    return {"the figure": place, "the figure of trust": place.with_stem(f"{place.stem}_trust")}


LINES = {
    "net": ("interpretation, net of guesses", "C0", "-"),
    "logit lens top-1": ("logit lens, top 1", "C1", "-"),
    "logit lens top-10": ("logit lens, top 10", "C1", "--"),
    "tuned lens top-1": ("tuned lens, top 1", "C2", "-"),
    "jacobian lens top-1": ("Jacobian lens, top 1", "C4", "-"),
    "own layer": ("the model finishes its own pass", "0.6", ":"),
    "by other": ("control: another fact's vector", "C3", "-"),
    "by random": ("control: random vector", "C3", ":"),
}


def recovery_figure(figure: Figure, recovery: dict[str, Any], known: int) -> None:
    """Recovery by layer: interpretation, logit lens, controls; the band is the 95 % interval."""
    axes = figure.add_subplot()
    for name, (label, colour, style) in LINES.items():
        points = {layer: shares[name] for layer, shares in recovery["layers"].items() if name in shares}
        if not points:
            continue
        layers = list(points)
        axes.plot(layers, [share["value"] for share in points.values()], style, color=colour, label=label)
        if name == "net":
            low, high = ([share[end] for share in points.values()] for end in ("low", "high"))
            axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(ylim=(0, 1), xlabel="source layer", ylabel=f"share of {known} known facts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def trust_figure(figure: Figure, trust: dict[str, Any]) -> None:
    """Precision by coverage: of the interpretations that are trusted most, how many are right."""
    axes = figure.add_subplot()
    by_coverage = trust["precision by coverage"]
    coverages = [int(label.rstrip("%")) for label in by_coverage]
    low, value, high = ([100 * share[end] for share in by_coverage.values()] for end in ("low", "value", "high"))
    axes.plot(coverages, value, color="C0", label="most trusted first")
    axes.fill_between(coverages, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.axhline(value[0], color="0.6", linestyle=":", label="in any order")
    axes.set(xlim=(0, 100), ylim=(0, None), ylabel="right, %")
    axes.set_xlabel(f"most trusted of {trust['interpretations']['here']:,} interpretations, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
