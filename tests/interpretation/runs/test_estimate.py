"""The cost that a plan states is what the run costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.interpretation import Interpretations
from transformers.interpretation.engine.kernels import linear
from transformers.interpretation.engine.sampling import Sampling
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.flops import Rate
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from transformers.interpretation.runs.estimate import estimate_plan
from transformers.interpretation.runs.grid import Plan, Source
from transformers.interpretation.runs.job import Job
from transformers.interpretation.runs.limits import Limits
from transformers.interpretation.runs.planning import make_plan
from transformers.interpretation.runs.source_model import SourceModel

TOKENIZER = tiny_tokenizer()
SPECS = [InterpretationPromptSpec("short", text="ab: _ _ is"), InterpretationPromptSpec("first", text="_ means")]
EXAMPLES = [Example("fact_1", "Hi there", "fact", True, "x"), Example("b_2", "No, thank you", raw=True)]
CONFIG = {"vocab_size": VOCABULARY, "eos_token_id": None}
"""Without an end of text every interpretation has all its tokens."""


def plan_of(model, how, examples=EXAMPLES, **options):
    choices = {"layers": Selection("all"), "tokens": Selection("all"), "prompt_output_tokens": 2, "chunk_cells": 40}
    return make_plan(TOKENIZER, examples, SPECS, Limits.of(model), how, **{**choices, **options})


def estimate_of(model, plan, how, batch_size=16, source_model=None):
    with torch.device("meta"):
        skeleton, source = (one and type(one)(one.config) for one in (model, source_model))
    options = {"dtype": torch.float32, "batch_size": batch_size, "source_model": source}
    return estimate_plan(plan, how, skeleton, TOKENIZER, **options)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9))
def test_batches_are_those_of_the_cells_one_by_one(n_tokens, n_prompts, chunk_cells, batch_size):
    sources = tuple(Source(Example(f"x_{i}", "x"), "x", (5,) * n, tuple(range(n))) for i, n in enumerate(n_tokens))
    prompts = tuple(InterpretationPrompt(f"p{i}", (5, 6, 7), (i % 2,), "") for i in range(n_prompts))
    plan = Plan(sources, prompts, (0, 2, 4), 0, chunk_cells * 5)
    found = estimate_of(MODEL, plan, InterpretationSettings(max_new_tokens=3), batch_size)
    chunks = [Counter(address.prompt.name for address in plan.chunk(index)) for index in range(plan.n_chunks)]
    assert (found.cells, found.chunks) == (sum(sum(chunk.values()) for chunk in chunks), len(chunks))
    assert found.batches == sum(-(-cells // batch_size) for chunk in chunks for cells in chunk.values())
    shared = sum(int(name[1:]) % 2 for chunk in chunks for name in chunk)
    rest = sum(cells * (3 - int(name[1:]) % 2) for chunk in chunks for name, cells in chunk.items())
    assert found.prompts.tokens == shared + rest
    assert found.decoding.tokens == 2 * plan.n_cells


MODEL = tiny_model(**CONFIG)


def run_counted(model, plan, how, **options):
    """(operations, tokens that went through the model, records)"""
    tokens = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: tokens.append(args[0].numel()))
    try:
        torch_linear = patch.object(linear, "_is_faster", lambda: False)  # of oneDNN's nothing is counted
        with torch_linear, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            job = Job(model, TOKENIZER, plan, how, batch_size=16, **options)
            records = list(job.all_records())
    finally:
        handle.remove()
    return counter.get_total_flops(), sum(tokens), records


def test_a_real_run_takes_what_was_said(tmp_path):
    how = InterpretationSettings(max_new_tokens=12)
    plan = plan_of(MODEL, how, layers=Selection("1:"), tokens=Selection("-2:"))
    found = estimate_of(MODEL, plan, how)
    operations, tokens, records = run_counted(MODEL, plan, how)
    assert all(len(record.interpretation) == 12 for record in records)
    assert len(records) == found.cells
    without_plain = found.work.tokens - found.plain.tokens
    assert without_plain < tokens <= found.work.tokens
    assert tokens > 0.8 * found.work.tokens
    assert 0.8 < operations / found.operations <= 1
    Interpretations(records).to_csv(tmp_path / "out.csv")
    assert 0.7 < (tmp_path / "out.csv").stat().st_size / found.csv_bytes < 1.3
    assert found.weight_bytes == sum(parameter.numel() * 4 for parameter in MODEL.parameters())
    longest = max(len(prompt.input_ids) for prompt in plan.prompts) + 12
    assert found.cache_bytes == 2 * 16 * longest * 2 * 4 * 2 * 8 * 4  # k and v, layers, heads, head size, float32


def test_of_a_difference_both_prompts_are_read():
    how = InterpretationSettings(max_new_tokens=1)
    example = Example("d_1", "The cat", raw=True, minus="A dog is")
    plan = plan_of(MODEL, how, examples=[example], layers=Selection("1:"), tokens=Selection("last"))
    assert run_counted(MODEL, plan, how)[1] == estimate_of(MODEL, plan, how).work.tokens


def test_what_is_certain_is_exact():
    """With one new token nothing is decoded and nothing is read again: sources and prompts are left."""
    how = InterpretationSettings(max_new_tokens=1)
    for captured in (10**9, 1):  # all layers of a source in one pass, or one by one
        plan = plan_of(MODEL, how, layers=Selection("1:"), tokens=Selection("3:7"))
        plan = replace(plan, captured_bytes=captured)
        found = estimate_of(MODEL, plan, how)
        operations, tokens, _ = run_counted(MODEL, plan, how)
        assert tokens == found.work.tokens
        assert operations == pytest.approx(found.operations, rel=1e-2)


def test_sources_are_read_by_the_source_model():
    """Twice as wide as the model: its reading is most of the work."""
    how = InterpretationSettings(max_new_tokens=1)
    source = tiny_model(**CONFIG, hidden_size=64, num_hidden_layers=2)
    plan = plan_of(MODEL, how, layers=Selection("1"), source_model=SourceModel(source, TOKENIZER))
    found = estimate_of(MODEL, plan, how, source_model=source)
    narrower = SourceModel(source, TOKENIZER, {1: lambda vectors: vectors[:, :32]})
    operations, tokens, _ = run_counted(MODEL, plan, how, source_model=narrower)
    assert tokens == found.work.tokens - found.sources.tokens
    assert operations == pytest.approx(found.operations, rel=1e-2)
    sizes = [sum(weight.numel() for weight in one.parameters()) for one in (MODEL, source)]
    assert found.weight_bytes == 4 * sum(sizes)
    assert "({:,} parameters, the source model's {:,})".format(*sizes) in "\n".join(found.lines())


def test_nothing_but_the_prompt_where_no_output_is_asked_for():
    how = InterpretationSettings(max_new_tokens=1)
    plan = plan_of(MODEL, how, prompt_output_tokens=0, tokens=Selection("last"))
    assert estimate_of(MODEL, plan, how).sources.tokens == sum(len(source.input_ids) for source in plan.sources)


def test_hours_are_the_work_over_the_rate():
    how = InterpretationSettings(max_new_tokens=4)
    found = estimate_of(MODEL, plan_of(MODEL, how), how)
    assert found.hours(Rate(2.0, False), devices=3) == pytest.approx(found.cells / 2 / 3 / 3600)
    assert found.hours(Rate(1e9, True), devices=1) == pytest.approx(found.operations / 1e9 / 3600)
    assert found.duration(Rate(found.cells / 7200, False), 1).startswith("time        2.0 hours on 1 device at ")
    assert found.duration(Rate(found.cells / 360, False), 2).startswith("time        3.0 minutes on 2 devices at ")
    text = "\n".join(found.lines())
    for number in (found.cells, found.batches, found.work.tokens, found.size.parameters):
        assert f"{number:,}" in text


def test_samples_are_cells_of_their_own():
    how = InterpretationSettings(max_new_tokens=1, sampling=Sampling(3))
    plan = plan_of(MODEL, how, layers=Selection("1:"), tokens=Selection("last"))
    found = estimate_of(MODEL, plan, how)
    _, tokens, records = run_counted(MODEL, plan, how)
    assert len(records) == found.cells == 2 * 2 * 4 * 3  # examples, prompts, layers, samples
    assert tokens == found.work.tokens
    once = InterpretationSettings(max_new_tokens=1)
    single = estimate_of(MODEL, plan_of(MODEL, once, layers=Selection("1:"), tokens=Selection("last")), once)
    assert 2.8 < found.csv_bytes / single.csv_bytes < 3.1  # both have a header


def test_segments_have_prompts_of_their_own_length():
    how = InterpretationSettings(max_new_tokens=1)
    spec = InterpretationPromptSpec("each", text="ab: _ is", repeated=True)
    choices = {"layers": Selection("1:"), "tokens": Selection("segment(1:),segment(-3:),last")}
    plan = make_plan(
        TOKENIZER, EXAMPLES, [spec], Limits.of(MODEL), how, prompt_output_tokens=0, chunk_cells=7, **choices
    )
    for captured in (10**9, 1):
        plan = replace(plan, captured_bytes=captured)
        found = estimate_of(MODEL, plan, how)
        _, tokens, records = run_counted(MODEL, plan, how)
        assert len(records) == found.cells == 2 * 4 * 3
        assert tokens == found.work.tokens
