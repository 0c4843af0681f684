"""One cell at a time by plain passes, and the engine compared with it."""

from __future__ import annotations

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.engine.cell import Cell, Interpretation
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.kv_cache import empty_cache
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

# The older layout of Bloom's cache has no dimension of its own for rows.
REFUSED = {"bloom"} & {family.model_type for family in available_families() if empty_cache(tiny_model("bloom")) is None}
FAMILIES = [family.model_type for family in available_families() if family.model_type not in REFUSED]
TOLERANCE = 1e-4
SETTINGS = InterpretationSettings(max_new_tokens=10)


def prompt_of(ids: list[int], placeholders: list[int]) -> InterpretationPrompt:
    return InterpretationPrompt("test", tuple(ids), tuple(placeholders), " ".join(map(str, ids)))


PROMPT = prompt_of([1, 9, 30, 31, 12, 13, 40], [2, 3])
OTHER = prompt_of([60, 33, 34, 35, 61, 62, 63, 64, 65], [1, 3])
ONE_TOKEN = prompt_of([17], [0])


def vectors(model: torch.nn.Module, count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, model.config.hidden_size, generator=generator))


@torch.no_grad()
def reference(model: torch.nn.Module, cell: Cell, settings: InterpretationSettings) -> tuple[Interpretation, list]:
    """What the cell must give, and the distance between the two best logits at every token."""
    places = len(cell.prompt.insert_locations)
    layers = settings.insert_layer if cell.insert_layer is None else cell.insert_layer
    entry = (list(cell.prompt.insert_locations), cell.vector.expand(1, places, -1))
    info = [
        {
            **dict.fromkeys([layers] if isinstance(layers, int) else layers, entry),
            "overlay_strength": settings.overlay_strength,
            "replacing_mode": settings.replacing_mode,
        }
    ]
    ids = torch.tensor([cell.prompt.input_ids])
    whole = model.generate_interpret(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        insert_info=info,
    )
    said = whole[0, ids.shape[1] :]
    under = model.forward_interpret(input_ids=whole[:, :-1], insert_info=info).logits[0, ids.shape[1] - 1 :]
    without = model.forward_interpret(input_ids=whole[:, :-1]).logits[0, ids.shape[1] - 1 :]
    probability = under.softmax(-1).gather(-1, said[:, None])[:, 0]
    plain = without.softmax(-1).gather(-1, said[:, None])[:, 0]
    best = under.topk(2).values
    relevancy = (probability - plain).abs()
    expected = Interpretation(*(tuple(values.tolist()) for values in (said, probability, relevancy)))
    return expected, (best[:, 0] - best[:, 1]).tolist()


def assert_equal(found: Interpretation, expected: Interpretation, margins: list[float]) -> None:
    """The same tokens, except after two best logits that lie within the tolerance; the same numbers."""
    assert found.status == "ok"
    assert len(found.token_ids) == len(found.probabilities) == len(found.relevancy)
    for step, margin in enumerate(margins):
        if margin <= TOLERANCE:
            return
        assert found.token_ids[step] == expected.token_ids[step]
        assert found.probabilities[step] == pytest.approx(expected.probabilities[step], abs=TOLERANCE)
        assert found.relevancy[step] == pytest.approx(expected.relevancy[step], abs=TOLERANCE)
    assert len(found.token_ids) == len(expected.token_ids)


def check(model: torch.nn.Module, cells: list[Cell], settings: InterpretationSettings, batch_size: int = 8) -> list:
    found = interpret_chunk(model, cells, settings, batch_size=batch_size)
    assert len(found) == len(cells)
    for cell, interpretation in zip(cells, found):
        assert_equal(interpretation, *reference(model, cell, settings))
    return found
