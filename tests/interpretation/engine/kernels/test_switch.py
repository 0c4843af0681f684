"""The engine gives the same results with its own kernels and without them."""

from __future__ import annotations

import pytest
import torch
from decode_reference import FAMILIES
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.kernels import switch
from transformers.interpretation.engine.settings import InterpretationSettings

PROMPT = InterpretationPrompt.from_text(tiny_tokenizer(), "abc: _ _ is")


def interpretations(model):
    dice = torch.Generator().manual_seed(0)
    hidden = model.get_input_embeddings().weight.shape[-1]
    cells = [Cell(torch.randn(hidden, generator=dice), PROMPT) for _ in range(5)]
    return interpret_chunk(model, cells, InterpretationSettings(max_new_tokens=6), batch_size=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_the_same_and_probabilities_to_rounding(family, monkeypatch):
    model = tiny_model(family, vocab_size=VOCABULARY)
    with_kernels = interpretations(model)
    monkeypatch.setenv(switch.VARIABLE, "0")
    for found, expected in zip(with_kernels, interpretations(model)):
        assert found.token_ids == expected.token_ids
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert found.relevancy == pytest.approx(expected.relevancy, abs=1e-5)


def test_the_switch_leaves_every_function_as_torch_has_it(monkeypatch):
    overrides = []
    monkeypatch.setattr(switch, "FunctionOverrides", lambda answers: overrides.append(answers) or torch.no_grad())
    with switch.row_selection(torch.nn.Linear(1, 1)) as selected:
        assert overrides and selected is not switch.select_rows
    monkeypatch.setenv(switch.VARIABLE, "0")
    overrides.clear()
    with switch.row_selection(torch.nn.Linear(1, 1)) as selected:
        assert not overrides and selected is switch.select_rows


def test_a_misspelt_switch_is_an_error(monkeypatch):
    monkeypatch.setenv(switch.VARIABLE, "off")
    with pytest.raises(ValueError, match="LLM_INTERPRET_KERNELS is 'off': set it to 0"):
        switch.are_used()
