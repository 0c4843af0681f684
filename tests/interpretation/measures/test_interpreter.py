"""Vectors that a mapping takes to another space first, and states of last tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation.mapping.affine import MappingError
from transformers.interpretation.measures import last_token_states

TOKENIZER = tiny_tokenizer()


def test_a_mapping_comes_before_the_insertion(interpreter):
    """Twice the vector by a map of its layer is twice the vector."""
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    mapped = replace(interpreter, mapping={2: lambda states: 2 * states})
    assert mapped(vectors, 2) == interpreter(2 * vectors, 2)
    with pytest.raises(MappingError, match="nothing for layer 3"):
        mapped(vectors, 3)


@torch.no_grad()
def test_states_are_those_of_the_last_token(model):
    for raw, text in ((True, "Hullo"), (False, "[INST] Hullo [/INST]")):
        ((found,),) = last_token_states(model, TOKENIZER, ["Hullo"], [3], raw=raw)
        ids = torch.tensor([TOKENIZER.encode(text)])
        assert torch.allclose(found, model(ids, output_hidden_states=True).hidden_states[3][0, -1], atol=1e-5)
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        last_token_states(model, TOKENIZER, ["Hullo"], [9])
