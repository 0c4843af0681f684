"""What the engine does not compute twice, and cells that fail."""

from __future__ import annotations

import torch
from decode_reference import PROMPT, SETTINGS, check, vectors
from transformers.interpretation.engine.cell import Cell, Interpretation
from transformers.interpretation.engine.decode import interpret_chunk


def count_positions(model: torch.nn.Module) -> tuple[list[int], torch.utils.hooks.RemovableHandle]:
    counted: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, args, out: counted.append(args[0].numel()))
    return counted, handle


def test_identical_vectors_are_interpreted_once(llama):
    one, other = vectors(llama, 2)
    counted, handle = count_positions(llama)
    try:
        twice = interpret_chunk(llama, [Cell(v, PROMPT) for v in (one, other)], SETTINGS, batch_size=8)
        work = sum(counted)
        many = interpret_chunk(llama, [Cell(v.clone(), PROMPT) for v in (one, other, one, one)], SETTINGS, batch_size=8)
        assert sum(counted) == 2 * work
    finally:
        handle.remove()
    assert many == [*twice, twice[0], twice[0]]


def test_without_surgery_every_text_is_read_once(llama):
    """Besides the prompt's and the cells' own tokens: one for each distinct beginning that a cell continues."""
    cells = [Cell(v * scale, PROMPT) for v in vectors(llama, 4) for scale in (1, 1.001, 30)]
    counted, handle = count_positions(llama)
    try:
        texts = [text.token_ids for text in interpret_chunk(llama, cells, SETTINGS, batch_size=64)]
    finally:
        handle.remove()
    beginnings = {text[:end] for text in texts for end in range(1, len(text))}
    own = sum(len(text) - 1 for text in texts)
    assert len(beginnings) < own, "some say the same"
    rest = len(PROMPT.input_ids) - min(PROMPT.insert_locations)
    assert sum(counted) == min(PROMPT.insert_locations) + (len(cells) + 1) * rest + own + len(beginnings)


def test_many_rows_are_rounded_up_and_the_rest_is_read_by_nobody(ends_often):
    counted, handle = count_positions(ends_often)
    cells = [Cell(v, PROMPT) for v in vectors(ends_often, 70)]
    try:
        found = interpret_chunk(ends_often, cells, SETTINGS, batch_size=128)
    finally:
        handle.remove()
    steps = counted[2:]  # behind the shared part and the rest of the prompt
    assert len(steps) == SETTINGS.max_new_tokens - 1
    assert all(rows % 8 == 0 if rows >= 128 else rows % 4 == 0 if rows >= 64 else rows % 2 == 0 for rows in steps)
    assert found == check(ends_often, cells, SETTINGS, 128)


def test_a_cell_that_goes_wrong_leaves_the_others_alone(llama):
    good = vectors(llama, 3)
    bad = [torch.full_like(good[0], float("nan")), good[0].clone()]
    bad[1][3] = float("inf")
    found = interpret_chunk(llama, [Cell(v, PROMPT) for v in (good[0], *bad, *good[1:])], SETTINGS, batch_size=8)
    assert found[0::3] + found[4:] == interpret_chunk(llama, [Cell(v, PROMPT) for v in good], SETTINGS, batch_size=8)
    for text in found[1:3]:
        assert text == Interpretation((), (), (), "the vector has NaN or infinity in torch.float32")


def test_numbers_out_of_range_inside_the_model(llama):
    cells = [Cell(v, PROMPT) for v in vectors(llama, 6)]
    expected = interpret_chunk(llama, cells, SETTINGS, batch_size=8)
    struck = expected[2].token_ids[3]

    def break_down(module, args, logits):
        return logits.masked_fill(logits.argmax(-1, keepdim=True) == struck, float("nan"))

    handle = llama.get_output_embeddings().register_forward_hook(break_down)
    try:
        found = interpret_chunk(llama, cells, SETTINGS, batch_size=8)
    finally:
        handle.remove()
    for after, before in zip(found, expected):
        if struck not in before.token_ids:
            assert after.token_ids == before.token_ids
            continue
        step = before.token_ids.index(struck)
        assert after == Interpretation((), (), (), f"the logits have NaN or infinity at new token {step}")
    assert any(text.status == "ok" for text in found)
