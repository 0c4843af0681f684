"""A tiny model and interpreters for it."""

from __future__ import annotations

import pytest
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.measures import Interpreter
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def interpreter(model):
    tokenizer = tiny_tokenizer()
    prompt = InterpretationPromptSpec("short", text="ab: _ _ is").build(tokenizer)
    return Interpreter(model, tokenizer, prompt, InterpretationSettings(max_new_tokens=4), batch_size=8)
