"""The cost that a plan of vectors states is what the run costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import Interpretations
from transformers.interpretation.engine.sampling import Sampling
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt
from transformers.interpretation.runs.bulk_vectors import BulkJob
from transformers.interpretation.runs.estimate_vectors import estimate_vectors
from transformers.interpretation.runs.vector_plan import VectorPlan
from transformers.interpretation.vectors.formats import open_vectors

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(vocab_size=VOCABULARY, eos_token_id=None)
"""Without an end of text every interpretation has all its tokens."""
PROMPTS = tuple(InterpretationPrompt.from_text(TOKENIZER, text, name=text) for text in ("ab: _ _ is", "_ means"))
N = 130


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(N, 32)))
    return open_vectors(tmp_path / "v.npy")


def run_counted(plan, how, strength):
    """(tokens that went through the model, records)"""
    tokens = []
    handle = MODEL.get_input_embeddings().register_forward_pre_hook(lambda _, args: tokens.append(args[0].numel()))
    try:
        job = BulkJob(MODEL, TOKENIZER, plan, how, strength=strength, batch_size=16)
        records = list(job.all_records())
    finally:
        handle.remove()
    return sum(tokens), records


@pytest.mark.parametrize("strength", [1.0, "auto"])
@pytest.mark.parametrize("samples", [0, 2])
def test_a_run_takes_what_was_said(file, tmp_path, strength, samples):
    """With one new token nothing is decoded and nothing is read again, so that it is exact."""
    sampling = Sampling.of(samples, 1.0, 1.0, 0)
    plan = VectorPlan(file, range(5, N), PROMPTS, 40, samples or None)
    how = InterpretationSettings(max_new_tokens=1, sampling=sampling)
    found = estimate_vectors(plan, how, MODEL, strength=strength, dtype=torch.float32, batch_size=16)
    tokens, records = run_counted(plan, how, strength)
    assert (found.cells, found.chunks) == (len(records), plan.n_chunks)
    assert tokens == found.strengths.tokens + found.prompts.tokens + found.plain.tokens
    assert (found.strengths.tokens > 0) == (strength == "auto")
    Interpretations(records).to_csv(tmp_path / "out.csv")
    assert 0.7 < (tmp_path / "out.csv").stat().st_size / found.csv_bytes < 1.3
