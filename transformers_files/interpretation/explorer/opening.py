"""What the page opens with: the fields of its form that show an example of finished results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..models.layer_spec import insert_layer_text
from ..prompts.interpretation_prompt import BUILT_IN
from ..results.record import MINUS, Record

_SEPARATOR = f"\n{MINUS.strip()}\n"


def opening(records: Sequence[Record]) -> dict[str, str]:
    """Prompt, layers, tokens, interpretation prompt and insert layer of the first example that has a prompt.

    Strength and guidance are not in records: the page's own are the defaults.
    """
    named = next((record for record in records if record.kind in ("prompt", "output", "difference")), None)
    if named is None or (named.kind == "difference" and named.prompt.count(_SEPARATOR) != 1):
        return {}  # of a text with several separators nobody knows which of them parts the two prompts
    its = [record for record in records if (record.name, record.prompt) == (named.name, named.prompt)]
    fields = {"prompt": named.prompt, "layers": _indices(record.layer_idx for record in its)}
    if named.kind == "difference":
        fields["prompt"], _, fields["other"] = named.prompt.partition(_SEPARATOR)
        fields["view"] = "difference"
    if all(record.kind in ("prompt", "difference") for record in its):  # generated tokens come with all alone
        fields["tokens"] = _indices(record.token_idx for record in its)
    if named.repeat_prompt_name in BUILT_IN:
        fields["interpretation_prompt"] = named.repeat_prompt_name
    return fields | {"insert_layer": insert_layer_text(named.insert_layer)}


def _indices(found: Iterable[int | None]) -> str:
    return ",".join(str(index) for index in sorted({index for index in found if index is not None}))
