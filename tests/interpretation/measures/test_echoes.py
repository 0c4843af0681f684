"""Words of the interpretation prompt in interpretations."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.measures import Interpreter, echoes_in, score_echoes
from transformers.interpretation.prompts.examples import Example


def test_each_word_counts_once_per_text_and_function_words_do_not():
    prompt = "Oslo: a city in Norway\ntennis: a sport with balls\n _"
    texts = [": a city, a CITY in the north", " sports of Norway", "capacity with a", "a sport; a city"]
    echoes = echoes_in(texts, prompt)
    assert echoes.shares == {"city": 0.5, "norway": 0.25, "sport": 0.25, "balls": 0, "oslo": 0, "tennis": 0}
    assert list(echoes.most(2)) == ["city", "norway"]
    assert echoes.cells == 4


def test_there_must_be_interpretations():
    with pytest.raises(ValueError, match="no interpretations"):
        echoes_in([], "a prompt")


def test_every_token_of_every_example_is_looked_at_at_every_layer():
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocab_size=VOCABULARY)
    prompt = InterpretationPromptSpec("short", text="ab: _ is").build(tokenizer)
    interpreter = Interpreter(model, tokenizer, prompt, InterpretationSettings(max_new_tokens=3), batch_size=8)
    asked = []

    class Listening(Interpreter):
        def __call__(self, vectors, layer):
            asked.append((layer, vectors))
            return super().__call__(vectors, layer)

    listening = Listening(**vars(interpreter))
    examples = [Example("one", "abc", raw=True), Example("two", "defgh", raw=True)]
    assert score_echoes(listening, examples, [0, 2]).cells == 2 * (3 + 5)
    for layer, vectors in asked:
        states = [
            model(torch.tensor([tokenizer.encode(example.prompt)]), output_hidden_states=True).hidden_states[layer][0]
            for example in examples
        ]
        assert torch.allclose(vectors, torch.cat(states), atol=1e-5)
    assert [layer for layer, _ in asked] == [0, 2]
