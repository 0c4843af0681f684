"""Plans of examples for a model of four layers."""

from __future__ import annotations

import pytest
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.runs.limits import Limits, PlanError
from transformers.interpretation.runs.planning import make_plan

TOKENIZER = tiny_tokenizer()
LIMITS = Limits(n_layers=4, positions=64, vocabulary=VOCABULARY)
SPEC = InterpretationPromptSpec("short", text="x: _ is")


def plan_of(examples, specs=(SPEC,), limits=LIMITS, tokenizer=TOKENIZER, **options):
    insert_layer = options.pop("insert_layer", 1)
    choices = {"layers": Selection("all"), "tokens": Selection("all"), "prompt_output_tokens": 1, "chunk_cells": 4}
    settings = InterpretationSettings(insert_layer=insert_layer, max_new_tokens=8)
    return make_plan(tokenizer, examples, specs, limits, settings, **{**choices, **options})


def problems_of(*args, **options):
    with pytest.raises(PlanError) as caught:
        plan_of(*args, **options)
    return list(caught.value.problems)
