"""Patchscopes' identity prompt, against generate."""

from __future__ import annotations

import pytest
import torch
from measured_cells import TOKENIZER
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.measures import (
    next_token_shares,
)
from transformers.interpretation.measures.identity import IDENTITY


@pytest.mark.parametrize("insert_layers", [(2,), (1, 2)])
def test_the_next_token_is_that_of_surgery_in_generate(model, insert_layers):
    texts = ["Hi", "No", "Yes"]
    settings = InterpretationSettings(insert_layer=insert_layers)
    found = next_token_shares(model, TOKENIZER, texts, [0, 3], settings, batch_size=2)
    prompt = IDENTITY.build(TOKENIZER)
    ids = torch.tensor([prompt.input_ids])
    for layer in (0, 3):
        hits, surprisals, theirs = [], [], []
        for text in texts:
            source = torch.tensor([TOKENIZER.encode(text)])
            with torch.no_grad():
                own = model(input_ids=source, output_hidden_states=True)
                expected = int(own.logits[0, -1].argmax())
                state = own.hidden_states[layer][:, -1:]
                info = dict.fromkeys(insert_layers, (list(prompt.insert_locations), state))
                info |= {"replacing_mode": "normalized", "overlay_strength": 1.0}
                out = model.forward_interpret(input_ids=ids, insert_info=[info])
            probabilities = out.logits[0, -1].softmax(-1)
            hits.append(int(probabilities.argmax()) == expected)
            surprisals.append(-float(probabilities[expected].log()))
            theirs.append(-float(own.logits[0, -1].log_softmax(-1)[probabilities.argmax()]))
        assert found[layer].precision.value == pytest.approx(sum(hits) / 3)
        assert found[layer].surprisal.value == pytest.approx(sum(surprisals) / 3, rel=1e-3)
        assert found[layer].patchscopes_surprisal.value == pytest.approx(sum(theirs) / 3, rel=1e-3)


def test_at_the_layer_that_a_state_comes_from(model):
    texts = ["Hi", "No", "Yes"]
    same = next_token_shares(model, TOKENIZER, texts, [1, 3], InterpretationSettings(insert_layer="same"), batch_size=2)
    for layer in (1, 3):
        settings = InterpretationSettings(insert_layer=layer)
        assert same[layer] == next_token_shares(model, TOKENIZER, texts, [layer], settings, batch_size=2)[layer]
