"""What `interpret` and `interpret_vectors` refuse, by name."""

from __future__ import annotations

import pytest
import torch
from api_cells import OPTIONS, SPEC, TOKENIZER
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import (
    interpret,
    interpret_vectors,
)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 5}, r"layers: 5 is out of range: there are 5 \(0 to 4"),
        ({"tokens": [0, 2]}, r"tokens: 2 is out of range: there are 2 \(0 to 1"),
        ({"layers": "x"}, '"x" is not an index'),
        ({"insert_layer": 4}, "insert layer 4 is out of range: 0 to 3"),
        ({"interpretation_prompt": "descrbie"}, "did you mean 'describe'"),
        ({"interpretation_prompt": [SPEC, 0.5]}, "for text with placeholders use InterpretationPrompt.from_text"),
        ({"interpretation_prompt": []}, "no interpretation prompt"),
        ({"interpretation_prompt": [SPEC, SPEC]}, 'two interpretation prompts are named "short"'),
        ({"replacing_mode": "normalised"}, "normalised"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"prompt_output_tokens": -1}, "prompt_output_tokens is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prompt_output_tokens": 600}, "the model takes 512"),
        ({"place": "mlp"}, "place is 'mlp': use one of residual, attention_output"),
        ({"place": "mlp_input", "layers": 4}, r"layers: 4 is out of range: there are 4 \(0 to 3"),
        ({"layers": "mean(0:2)"}, r"layers: mean\(0:2\) is for tokens alone"),
        ({"minus": "Hello"}, '"all" selects 2 of 2 tokens, of the other prompt 5 of 5'),
    ],
)
def test_bad_arguments_are_named(model, options, message):
    with pytest.raises(ValueError, match=message):
        interpret(model, TOKENIZER, "Hi", **{"raw": True, "interpretation_prompt": SPEC, **OPTIONS, **options})


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (torch.ones(2, 31), {}, "vectors are torch.float32, 2 × 31; expected floating point numbers, n × 32"),
        (torch.ones(31), {}, "vectors are torch.float32, 1 × 31;"),
        (torch.ones(2, 32, dtype=torch.long), {}, "vectors are torch.int64, 2 × 32;"),
        (torch.ones(2, 32), {"names": ["a"]}, "1 names for 2 vectors"),
        ([], {}, "no vectors: give at least one"),
        (torch.ones(0, 32), {}, "no vectors: give at least one"),
        ([torch.ones(32), torch.ones(31)], {}, r"vectors must be of one shape, not of 2: \(32,\), \(31,\)"),
        (["a"], {}, "vectors must be tensors, or numbers that make one"),
        (None, {}, "vectors must be tensors, or numbers that make one"),
    ],
)
def test_bad_vectors_are_named(model, vectors, options, message):
    with pytest.raises(ValueError, match=message):
        interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=SPEC, **options)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a\ud800"}, r"prompt has U\+D800 \(half of a surrogate pair\) at character 2, which is not text"),
        ({"minus": "\udfff"}, r"minus has U\+DFFF"),
        ({"prompt": 5}, "prompt must be text, found a number"),
        ({"prompt": ["a", ["b"]]}, "prompt must be text, found a list"),
        ({"prompt": []}, "no prompt"),
    ],
)
def test_prompts_that_are_no_text_are_refused(model, options, message, raw):
    with pytest.raises(ValueError, match=message):
        interpret(model, tiny_tokenizer(), **{"prompt": "ab", "raw": raw} | options)


def test_a_model_whose_parts_hand_each_other_tuples_is_refused():
    model = tiny_model(vocab_size=VOCABULARY)
    model.config.return_dict = False
    with pytest.raises(ValueError, match=r"return_dict false, .*; set config.return_dict = True"):
        interpret(model, tiny_tokenizer(), "Hi")
    with pytest.raises(ValueError, match=r"return_dict false, .*; set config.return_dict = True"):
        interpret_vectors(model, tiny_tokenizer(), torch.ones(1, 32))


def test_a_model_in_training_mode_is_refused(model):
    model.train()
    try:
        for call, what in [(interpret, "Hi"), (interpret_vectors, torch.ones(1, 32))]:
            with pytest.raises(ValueError, match="training mode"):
                call(model, TOKENIZER, what, interpretation_prompt=SPEC)
    finally:
        model.eval()
