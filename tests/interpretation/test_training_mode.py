"""A model in training mode gives other results every time: it is refused, even if only one part of it is."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, fit_affine, interpret, interpret_vectors, selfie
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.mapping.training_text import OwnTextSettings, sample_own_text, sample_texts
from transformers.interpretation.measures import Fact, Interpreter, known_facts

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="short")
SELFIE = selfie.InterpretationPrompt(TOKENIZER, ("ab ", 0, " is"))
TEXT = OwnTextSettings(("ab", "c"), texts_per_opening=2, text_tokens=6)
VECTORS = torch.ones(2, 32)
WAYS = {
    "interpret": lambda m: interpret(m, TOKENIZER, "Hi", raw=True, interpretation_prompt=PROMPT, max_new_tokens=2),
    "vectors": lambda m: interpret_vectors(m, TOKENIZER, VECTORS, interpretation_prompt=PROMPT, max_new_tokens=2),
    "selfie": lambda m: selfie.interpret("Hi", TOKENIZER, SELFIE, m, [(1, 1)], max_new_tokens=2),
    "selfie vectors": lambda m: selfie.interpret_vectors(VECTORS, m, SELFIE, TOKENIZER, max_new_tokens=2),
    "measures": lambda m: Interpreter(m, TOKENIZER, PROMPT, InterpretationSettings(max_new_tokens=2), 4)(VECTORS, 1),
    "known facts": lambda m: known_facts(m, TOKENIZER, [Fact("r", "ab", "x", "tuning", paraphrase="cd")]),
    "affine": lambda m: fit_affine(m, TOKENIZER, ["abcdef" * 9], source_layer=1, target_layer=2, ridge=0.1),
    "translator": lambda m: sample_own_text(m, TOKENIZER, [1], TEXT),
    "lens": lambda m: sample_texts(m, TOKENIZER, TEXT),
}


@pytest.mark.parametrize("part", ["", "model.layers.2.mlp"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_training_mode_is_refused(way, part):
    model = tiny_model(vocab_size=VOCABULARY)
    way(model)
    model.get_submodule(part).train()
    with pytest.raises(ValueError, match=f"{part} .*is in training mode" if part else "the model is in training mode"):
        way(model)
