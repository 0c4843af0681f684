"""A chunk's records depend on the job alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine import decode as engine
from transformers.interpretation.engine.batch_size import OutOfMemoryWarning
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.runs import source_activations as reading
from transformers.interpretation.runs.job import Job
from transformers.interpretation.runs.limits import Limits
from transformers.interpretation.runs.planning import make_plan
from transformers.interpretation.runs.source_activations import continue_greedily

TOKENIZER = tiny_tokenizer()
SETTINGS = InterpretationSettings(max_new_tokens=3)
EXAMPLES = [Example("fact_1", "Hi", "fact", True, "x"), Example("b_2", "Yes"), Example("c_3", "No", raw=True)]
SPECS = [InterpretationPromptSpec("short", text="ab: _ _ is"), InterpretationPromptSpec("other", text="_ means")]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def job_of(model, chunk_cells=7, **options):
    choices = {"layers": Selection("0,-1"), "tokens": Selection("all"), "prompt_output_tokens": 1, **options}
    plan = make_plan(TOKENIZER, EXAMPLES, SPECS, Limits.of(model), SETTINGS, chunk_cells=chunk_cells, **choices)
    return Job(model, TOKENIZER, plan, SETTINGS, batch_size=4)


def test_chunks_may_be_computed_in_any_order(model):
    job = job_of(model)
    whole = [job.records(chunk) for chunk in range(job.plan.n_chunks)]
    assert sum(len(records) for records in whole) == job.plan.n_cells
    for chunk in reversed(range(job.plan.n_chunks)):
        assert job_of(model).records(chunk) == whole[chunk]


def test_records_are_in_the_plans_order_and_say_where_they_come_from(model):
    job = job_of(model)
    records = list(job.all_records())
    cells = [address for chunk in range(job.plan.n_chunks) for address in job.plan.chunk(chunk)]
    assert len(records) == len(cells)
    for record, cell in zip(records, cells):
        example = cell.source.example
        assert (record.name, record.category, record.answer) == (example.name, example.category, example.answer)
        assert (record.layer_idx, record.token_idx) == (cell.layer, cell.token)
        assert record.repeat_prompt_name == cell.prompt.name
        assert record.prompt_token_list[record.token_idx] == record.current_token
    assert {record.prompt for record in records} == {"Hi", "[INST] Yes [/INST]", "No"}


def test_states_held_in_small_blocks_give_the_same(model, monkeypatch):
    job = job_of(model, 50, layers=Selection("all"))
    plan = replace(job.plan, captured_bytes=1)
    expected = job.records(0)
    assert Job(model, TOKENIZER, plan, SETTINGS, batch_size=4).records(0) == expected
    seen = []
    capture = reading.capture
    monkeypatch.setattr(
        reading, "capture", lambda m, i, layers, *where: seen.append(layers) or capture(m, i, layers, *where)
    )
    Job(model, TOKENIZER, plan, SETTINGS, batch_size=4).records(0)
    assert all(len(layers) == 1 for layers in seen)


@torch.no_grad()
def test_the_continuation_is_the_plain_argmax(model):
    model.generation_config.repetition_penalty = 9.0  # a checkpoint's taste, which must not count
    try:
        output = continue_greedily(model, [5, 6, 7], 6)
    finally:
        model.generation_config.repetition_penalty = 1.0
    sequence = [5, 6, 7]
    for _ in range(6):
        sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
    assert [5, 6, 7, *output] == sequence
    assert continue_greedily(model, [5, 6, 7], 0) == ()


def test_an_output_that_cannot_be_told_ends(model, monkeypatch):
    """Of NaN the argmax is a token all the same, and its states may be fine."""
    head, passes = model.lm_head, []

    def overflowing(_, args, logits):
        passes.append(logits)
        return logits + (float("nan") if len(passes) > 2 else 0)

    handle = head.register_forward_hook(overflowing)
    try:
        with pytest.warns(UserWarning, match="output ends after 2 tokens: the model's logits have NaN or infinity"):
            output = continue_greedily(model, [5, 6, 7], 6)
    finally:
        handle.remove()
    assert output == continue_greedily(model, [5, 6, 7], 2)


def test_out_of_memory_halves_the_batch_and_says_so(model, monkeypatch):
    expected = job_of(model, 12).records(0)
    decode, tried = engine._decode, []

    def cramped(model, prompt, vectors, *rest):
        tried.append(len(vectors))
        if len(vectors) > 1:
            torch.empty(1 << 50)  # the CPU allocator's own error
        return decode(model, prompt, vectors, *rest)

    monkeypatch.setattr(engine, "_decode", cramped)
    with pytest.warns(OutOfMemoryWarning) as caught:
        found = job_of(model, 12).records(0)
    assert [str(warning.message) for warning in caught][:2] == [
        "out of memory with 4 rows at once; continuing with 2",
        "out of memory with 2 rows at once; continuing with 1",
    ]
    assert tried[:3] == [4, 2, 1]
    assert [record.interpretation for record in found] == [record.interpretation for record in expected]
