"""Probabilities of texts behind a prompt with vectors in it, against one plain pass per text."""

from __future__ import annotations

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation import InterpretationPrompt
from transformers.interpretation.engine.likelihood import token_log_probabilities

PROMPT = InterpretationPrompt("numbers", (5, 9, 11, 9, 7), (1, 3), "numbers")
TEXTS = [[8, 3, 20], [4], [31, 30, 29, 28]]


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
def test_every_family_has_the_probabilities_of_a_pass_of_its_own(family):
    model = tiny_model(family)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def info(row):
        how = {"overlay_strength": 1.0, "replacing_mode": "normalized"}
        return {0: (list(PROMPT.insert_locations), vectors[row].expand(1, 2, -1)), **how}

    found = token_log_probabilities(model, PROMPT, [info(row) for row in range(3)], TEXTS)
    assert [len(one) for one in found] == [3, 1, 4]
    total = torch.zeros(())
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([[*PROMPT.input_ids, *text]])
        likely = model.forward_interpret(ids, insert_info=[info(row)], use_cache=False).logits[0].log_softmax(-1)
        expected = torch.stack([likely[4 + n, token] for n, token in enumerate(text)])
        torch.testing.assert_close(found[row], expected, atol=2e-4, rtol=1e-4)
        total = total + expected.sum()
    (mine,) = torch.autograd.grad(sum(one.sum() for one in found), vectors)
    (theirs,) = torch.autograd.grad(total, vectors)
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    assert (mine.abs().amax(1) > 0).all()
