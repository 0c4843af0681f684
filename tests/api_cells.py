"""Options and prompts of the API's tests, and what a vector says, computed the slow way."""

from __future__ import annotations

import pytest
import torch
from reference import reference_greedy, reference_pass
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="ab: _ _ is")
OTHER = InterpretationPromptSpec("other", text="_ means")
VECTOR_OPTIONS = {"max_new_tokens": 4, "batch_size": 5, "insert_layer": 1, "guidance": 0}
OPTIONS = {**VECTOR_OPTIONS, "deep_gain": 1}
"""Raw argmax after plain insertion, which the reference computes."""


@torch.no_grad()
def said(model, prompt, vector, n, *, insert_layer=1, mode="normalized", strength=1.0):
    """Tokens, probabilities and relevancy of one vector, the slow way."""
    places = list(prompt.insert_locations)
    info = {
        **dict.fromkeys(
            insert_layer if isinstance(insert_layer, tuple) else (insert_layer,),
            (places, vector.expand(1, len(places), -1)),
        ),
        "overlay_strength": strength,
        "replacing_mode": mode,
    }
    ids = list(prompt.input_ids)
    tokens = reference_greedy(model, ids, info, n)
    if 2 in tokens:
        tokens = tokens[: tokens.index(2) + 1]
    whole = [*ids, *tokens]
    under = reference_pass(model, whole, info, len(ids))[1].softmax(-1)
    plain = reference_pass(model, whole, {}, len(ids))[1].softmax(-1)
    rows = range(len(ids) - 1, len(whole) - 1)
    probabilities = [float(under[row, token]) for row, token in zip(rows, tokens)]
    relevancy = [abs(float(under[row, token] - plain[row, token])) for row, token in zip(rows, tokens)]
    return tuple(tokens), probabilities, relevancy


def assert_says(record, expected):
    tokens, probabilities, relevancy = expected
    assert record.status == "ok"
    assert record.interpretation == tokens
    assert record.interpretation_prob == pytest.approx(probabilities, abs=1e-4)
    assert record.interpretation_weights == pytest.approx(relevancy, abs=1e-4)
    text = TOKENIZER.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert record.interpretation_text == "".join(record.interpretation_tokens) == text.replace("\0", "\ufffd")
