"""Scores of labels against one plain pass per label, and what is counted of them."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.measures import Interpreter
from transformers.interpretation.measures.retrieval import centred, hits, label_scores, shuffled
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec

TOKENIZER = tiny_tokenizer()
LABELS = ["cat", "a long label", "x", "dog"]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("stop", ["", '"'])
def test_scores_are_those_of_one_label_at_a_time(family, stop):
    model = tiny_model(family, vocab_size=VOCABULARY)
    prompt = InterpretationPromptSpec("short", text="a _ b _:", stop=stop).build(TOKENIZER)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    how = InterpretationSettings(insert_layer=1)
    found = label_scores(Interpreter(model, TOKENIZER, prompt, how, 2, lambda v: 2 * v), vectors, 3, LABELS)
    for row, vector in enumerate(vectors):
        for column, label in enumerate(LABELS):
            text = TOKENIZER.encode(label + stop, add_special_tokens=False)
            ids = torch.tensor([[*prompt.input_ids, *text]])
            info = {1: (list(prompt.insert_locations), (2 * vector).expand(1, 2, -1))}
            info |= {"overlay_strength": 1.0, "replacing_mode": "normalized"}
            likely = model.forward_interpret(ids, insert_info=[info]).logits[0].log_softmax(-1)
            start = len(prompt.input_ids) - 1
            expected = sum(float(likely[start + n, one]) for n, one in enumerate(text))
            assert float(found[row, column]) == pytest.approx(expected, abs=1e-3)


def test_an_empty_label():
    model = tiny_model(vocab_size=VOCABULARY)
    prompt = InterpretationPromptSpec("short", text="a _").build(TOKENIZER)
    interpreter = Interpreter(model, TOKENIZER, prompt, InterpretationSettings(), 2)
    with pytest.raises(ValueError, match="label '' is empty"):
        label_scores(interpreter, torch.zeros(1, 32), 1, ["a", ""])


def test_hits():
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 3.0, 1.0]])
    assert hits(scores, [0, 0, 0]) == [True, True, False]
    assert hits(scores, [1, 2, 0], 2) == [True, False, True]
    assert hits(shuffled(scores), [0, 0, 0]) == [False, True, True]
    bias = torch.tensor([[0.0, 5.0], [-1.0, 5.5]])
    assert hits(bias, [0, 1]) == [False, True] and hits(centred(bias), [0, 1]) == [True, True]
