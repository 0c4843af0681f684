"""The cells of a file of vectors, against nested loops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt
from transformers.interpretation.runs.vector_plan import BLOCK, VectorAddress, VectorPlan

PROMPTS = tuple(InterpretationPrompt.from_text(tiny_tokenizer(), f"{letter}: _", name=letter) for letter in "xy")
FILE = SimpleNamespace(n=10_000_000)
"""Nothing of it is read."""


def cells_of(rows, prompts, samples):
    for start in range(rows.start, rows.stop, BLOCK):
        for prompt in prompts:
            for index in range(start, min(start + BLOCK, rows.stop)):
                for sample in [None] if samples is None else range(samples):
                    yield VectorAddress(prompt, index, sample)


@pytest.mark.parametrize("rows", [range(7), range(3, 203), range(250, 251), range(2 * BLOCK)])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
@pytest.mark.parametrize("samples", [None, 1, 3])
@pytest.mark.parametrize("chunk_cells", [1, 8, 256])
def test_all_cells_in_order_and_no_vectors_samples_apart(rows, prompts, samples, chunk_cells):
    plan = VectorPlan(FILE, rows, prompts, chunk_cells, samples)
    expected = list(cells_of(rows, prompts, samples))
    chunks = [plan.chunk(number) for number in range(plan.n_chunks)]
    assert [address for chunk in chunks for address in chunk] == expected
    assert plan.n_cells == len(expected)
    assert [len(chunk) for chunk in chunks] == [plan.chunk_size(number) for number in range(plan.n_chunks)]
    assert all(len(chunk) <= max(chunk_cells, samples or 1) for chunk in chunks)
    assert all(len(chunk) % (samples or 1) == 0 for chunk in chunks)
    by_prompt = [(prompt, number) for prompt, cells in plan.prompt_runs() for number in range(cells)]
    assert [prompt for prompt, _ in by_prompt] == [address.prompt for address in expected]


def test_blocks_are_named_after_their_rows():
    plan = VectorPlan(FILE, range(50, 260), PROMPTS, 256)
    assert plan.example_names == ["vectors_50:150", "vectors_150:250", "vectors_250:260"]
    assert [plan.block_name(index) for index in (50, 149, 150, 259)] == [
        "vectors_50:150",
        "vectors_50:150",
        "vectors_150:250",
        "vectors_250:260",
    ]


def test_a_plan_of_millions_is_as_small_as_any():
    plan = VectorPlan(FILE, range(FILE.n), PROMPTS, 256)
    last = plan.chunk(plan.n_chunks - 1)
    assert last[-1] == VectorAddress(PROMPTS[-1], FILE.n - 1)
    assert plan.n_cells == 2 * FILE.n
    assert len(last) < 256, "the last chunks of a large plan are smaller, so that many ranks end together"
