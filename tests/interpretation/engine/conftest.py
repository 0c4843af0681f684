"""A Llama, and the same that often ends early."""

from __future__ import annotations

from collections import Counter

import pytest
from decode_reference import PROMPT, SETTINGS, vectors
from tiny_models import tiny_model
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture
def ends_often(llama):
    """The model with end-of-sequence ids that it generates early in some interpretations and never in others."""
    before = llama.generation_config.eos_token_id
    llama.generation_config.eos_token_id = None
    texts = interpret_chunk(llama, [Cell(v, PROMPT) for v in vectors(llama, 24)], SETTINGS, batch_size=24)
    count = Counter(token for text in texts for token in set(text.token_ids))
    llama.generation_config.eos_token_id = [token for token, _ in count.most_common(3)[1:]]
    yield llama
    llama.generation_config.eos_token_id = before
