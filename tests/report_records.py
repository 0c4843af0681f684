"""Records to draw: of any size, some that went wrong, and texts that would do harm if anything ran or steered."""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from transformers.interpretation.report import show
from transformers.interpretation.results.record import Record

HOSTILE = (
    "<script>window.sentinel = 1</script>",
    "</script><script>window.sentinel = 1</script>",
    '<img src=x onerror="window.sentinel = 1">',
    "<!--<script>",
    "\"' onmouseover='window.sentinel = 1' \"",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp; &",
    "line\u2028separator\u2029end",
    "\u202eright to left\u202c",
    "lone \ud800 surrogate",
    "$\\frac{1}{0}$ [bold red]x[/] \x1b[31mred",
    "x" * 10_000,
)
"""Strings that end elements, open them, run, reverse the reading direction or cannot be encoded."""

_WORDS = (
    " Tokyo",
    ":",
    " a",
    " city",
    " in",
    " Japan",
    "\n",
    " country",
    " the",
    " is",
    " 東京",
    ",",
    " actor",
    " firm",
)


def grid_records(
    *,
    examples: int = 2,
    layers: int = 4,
    tokens: int = 3,
    prompts: tuple[str, ...] = ("describe",),
    length: int = 6,
    seed: int = 0,
) -> list[Record]:
    """A record for every cell; the last token of each example is one that the model generated."""
    random_source = random.Random(seed)
    records = []
    for example in range(examples):
        names = ["The", "Ġcapital", "Ġof", "ĠJapan", "Ġis", "Ċ"]
        token_list = (*(names[token % len(names)] for token in range(tokens - 1)), "ĠTokyo")
        for prompt in prompts:
            for layer in range(layers):
                for token in range(tokens):
                    pieces = tuple(random_source.choice(_WORDS) for _ in range(length))
                    ceiling = (layer + 1) / layers
                    records.append(
                        Record(
                            name=f"fact_{example + 1}",
                            category="fact",
                            prompt=f"The capital of Japan number {example + 1} is",
                            prompt_output=" Tokyo",
                            prompt_token_list=token_list,
                            layer_idx=layer,
                            token_idx=token,
                            current_token=token_list[token],
                            repeat_prompt="Syria: a country\n x",
                            repeat_prompt_name=prompt,
                            interpretation=tuple(range(length)),
                            interpretation_text="".join(pieces),
                            interpretation_weights=tuple(random_source.random() * ceiling for _ in pieces),
                            interpretation_prob=tuple(random_source.random() for _ in pieces),
                            token_source="prompt" if token < tokens - 1 else "output",
                            insert_layer=1,
                            answer="Tokyo",
                            interpretation_tokens=pieces,
                        )
                    )
    return records


def data_of(page: str) -> dict:
    """What the page's data element holds, by the HTML standard's rule: it ends at the first </script."""
    begin = page.index(">", page.index('<script type="application/json"')) + 1
    return json.loads(page[begin : page.index("</script", begin)])


def failed(record: Record) -> Record:
    """The same cell, gone wrong."""
    return replace(
        record,
        interpretation=(),
        interpretation_text="",
        interpretation_tokens=(),
        interpretation_weights=(),
        interpretation_prob=(),
        status="the embedding has NaN",
    )


def hostile_records(records: Sequence[Record]) -> list[Record]:
    """Records in which every text is one of the hostile strings."""
    return [
        replace(
            record,
            name=f"{text} {number}",
            category=text,
            prompt=text,
            prompt_output=text,
            prompt_token_list=(text,),
            current_token=text,
            token_source="prompt",
            repeat_prompt=text,
            repeat_prompt_name=text,
            interpretation=(1,),
            interpretation_text=text,
            interpretation_tokens=(text,),
            interpretation_weights=(0.5,),
            interpretation_prob=(0.25,),
            answer=text,
            layer_idx=0,
            token_idx=0,
        )
        for number, (record, text) in enumerate(zip(itertools.cycle(records), HOSTILE))
    ]


def shown(records: Sequence[Record], width: int, **settings: Any) -> str:
    """What a terminal of this width shows."""
    file = io.StringIO()
    show(records, console=Console(file=file, width=width, force_terminal=False), **settings)
    return file.getvalue()
