"""A page of features: what each is called, how well that fits, and the texts that activate it; the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..features.label_scores import LabelScore
from ..features.table import ShownContext
from .page import asset, content_hash, palette_style, render


def write_features_page(
    path: Path,
    scores: Sequence[LabelScore],
    contexts: Mapping[int, Sequence[ShownContext]],
    names: Sequence[str],
    *,
    first: int = 0,
    title: str = "Features",
) -> None:
    """One file without script or network.

    contexts, names: by the index that the scores have; first: what is added to it where it is shown.
    """
    rows = [
        {
            "index": first + one.index,
            "name": names[one.index],
            "score": one,
            "contexts": [
                (context.pieces[: context.at], context.pieces[context.at], context.pieces[context.at + 1 :])
                for context in contexts.get(one.index, ())
            ],
        }
        for one in sorted(scores, key=lambda one: -one.score)
    ]
    style = palette_style() + asset("page.css", "features.css")
    content = render("features.html.j2", title=title, rows=rows, style=style, style_hash=content_hash(style))
    path.write_text(content, encoding="utf-8")
