"""Layers by the names that other libraries give to their hook points.

| name                                                                  | is here                                  |
|-----------------------------------------------------------------------|------------------------------------------|
| `resid_pre.10`, `blocks.10.hook_resid_pre`, `model.layers.10.input`   | layer 10, the input of decoder layer 10  |
| `resid_post.10`, `blocks.10.hook_resid_post`, `model.layers.10.output`| layer 11: what decoder layer 10 puts out |

The output of the last decoder layer is no layer here, since the last hidden state is that output after the final norm:
it is read at the place `layer_output`, and in `insert_info` its name is understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES = (
    re.compile(r"resid_(?P<side>pre|post)\.(?P<layer>\d{1,6})", re.ASCII),
    re.compile(r"blocks\.(?P<layer>\d{1,6})\.hook_resid_(?P<side>pre|post)", re.ASCII),
    re.compile(r"(?:\w+\.)*(?:layers|h|blocks|layer)\.(?P<layer>\d{1,6})\.(?P<side>input|output)", re.ASCII),
)
_WITHIN = re.compile(
    r"(?:blocks\.(?P<first>\d{1,6})\.hook_)?(?P<what>mlp_out|mlp_in|attn_out|resid_mid)(?:\.(?P<last>\d{1,6}))?",
    re.ASCII,
)
_PLACES = {"mlp_out": "mlp_output", "mlp_in": "mlp_input", "attn_out": "attention_output"}


@dataclass(frozen=True)
class NamedLayer:
    """A layer that was given by a name."""

    name: str
    index: int
    """Of the hidden state, which is the input of that decoder layer."""
    is_output: bool
    """Whether the name is of what the decoder layer before it puts out."""

    def check(self, last: int) -> None:
        """Raise ValueError for the output of the last decoder layer; last: the index of the last hidden state."""
        if self.is_output and self.index == last:
            raise ValueError(
                f"{self.name} is what the last decoder layer puts out, which is no hidden state: {last} is that after "
                f'the final norm; write {last} if that is meant, or give place="layer_output" and layer {last - 1}'
            )


def named_layer(text: str) -> NamedLayer | None:
    """What a name means; None for a text that is none.

    Raises:
        ValueError: a name of a place within a layer, which is asked for in another way.
    """
    text = text.strip()
    for pattern in _NAMES:
        if match := pattern.fullmatch(text):
            is_output = match["side"] in ("post", "output")
            return NamedLayer(text, int(match["layer"]) + is_output, is_output)
    if (match := _WITHIN.fullmatch(text)) and (match["first"] or match["last"]):
        place = _PLACES.get(match["what"])
        remedy = f'give place="{place}" and the layer {match["first"] or match["last"]}' if place else "not supported"
        raise ValueError(f"{text} is a place within a layer, not between layers: {remedy}")
    return None
