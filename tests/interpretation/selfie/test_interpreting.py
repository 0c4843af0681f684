"""The `selfie` package's functions against its semantics computed the slow way."""

from __future__ import annotations

import pytest
import torch
from reference import reference_greedy, rewritten
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.interpretation.selfie import InterpretationPrompt, interpret, interpret_vectors

TOKENIZER = tiny_tokenizer()
SEQUENCE = ("[I]", 0, 0, "[/I] Sure:")


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@torch.no_grad()
def said(model, text, locations, vector, n, layer):
    """Greedy text after `text`, whose hidden states at `locations` are overwritten before decoder layer `layer`."""
    info = {
        layer: (locations, vector.reshape(1, 1, -1).expand(1, len(locations), -1)),
        "replacing_mode": "normalized",
        "overlay_strength": 1.0,
    }
    tokens = reference_greedy(model, TOKENIZER.encode(text), info, n)
    tokens = tokens[: tokens.index(2)] if 2 in tokens else tokens
    return TOKENIZER.decode(tokens, skip_special_tokens=True)


@torch.no_grad()
def relevancy(model, text, locations, vector, n, layer):
    """|probability with the vector − without it| of every token of that greedy text, its end included."""
    prompt = TOKENIZER.encode(text)
    vectors = vector.reshape(1, 1, -1).expand(1, len(locations), -1)
    info = {layer: (locations, vectors), "replacing_mode": "normalized", "overlay_strength": 1.0}
    tokens = reference_greedy(model, prompt, info, n)
    tokens = tokens[: tokens.index(2) + 1] if 2 in tokens else tokens
    with rewritten(model, [info], len(prompt)):
        under = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0]
    plain = model(torch.tensor([[*prompt, *tokens]])).logits[0]
    places = range(len(prompt) - 1, len(prompt) - 1 + len(tokens))
    return [
        abs(float(under[place].softmax(-1)[token] - plain[place].softmax(-1)[token]))
        for place, token in zip(places, tokens)
    ]


@pytest.mark.parametrize("k", [1, 2])
def test_interpret_equals_the_slow_way(model, k):
    pairs = [(2, 1), (4, -1), (0, 3), (2, 1), (-1, 4)]  # not sorted, one twice, after the final norm by both its names
    found = interpret(
        original_prompt="Hello",
        tokenizer=TOKENIZER,
        interpretation_prompt=InterpretationPrompt(TOKENIZER, SEQUENCE),
        model=model,
        tokens_to_interpret=pairs,
        bs=2,
        max_new_tokens=5,
        k=k,
    )
    with torch.no_grad():
        states = model(torch.tensor([TOKENIZER.encode("Hello")]), output_hidden_states=True).hidden_states
    # One token per byte: "[I]" takes places 0 to 2, and each "_ " two.
    expected = [said(model, "[I]_ _ [/I] Sure:", [3, 4, 5, 6], states[layer][0, token], 5, k) for layer, token in pairs]
    assert list(found) == ["prompt", "interpretation", "layer", "token", "token_decoded", "relevancy_score"]
    assert found["prompt"] == ["Hello"] * 5
    assert found["interpretation"] == expected
    assert len(set(expected)) > 1
    assert list(zip(found["layer"], found["token"])) == pairs
    assert found["token_decoded"] == ["e", "o", "l", "e", "o"]
    for (layer, token), scores in zip(pairs, found["relevancy_score"]):
        expected_scores = relevancy(model, "[I]_ _ [/I] Sure:", [3, 4, 5, 6], states[layer][0, token], 5, k)
        assert scores == pytest.approx(expected_scores, abs=1e-5)
    assert all(isinstance(score, float) for scores in found["relevancy_score"] for score in scores)


@pytest.mark.parametrize("shape", [(32,), (1, 32), (1, 1, 32)])
def test_vectors_equal_the_slow_way(model, shape):
    vectors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    prompt = InterpretationPrompt(TOKENIZER, SEQUENCE)
    found = interpret_vectors(vecs=vectors, model=model, interpretation_prompt=prompt, tokenizer=TOKENIZER, bs=2)
    assert found == [said(model, "[I]_ _ [/I] Sure:", [3, 4, 5, 6], vector, 30, 1) for vector in vectors]
    ignoring = interpret_vectors(vectors, model, prompt, TOKENIZER, k=3, max_new_tokens=30)
    assert ignoring == found
    deeper = interpret_vectors(vectors, model, prompt, TOKENIZER, insert_layer=2, max_new_tokens=4)
    assert deeper == [said(model, "[I]_ _ [/I] Sure:", [3, 4, 5, 6], vector, 4, 2) for vector in vectors]


def test_a_config_that_samples_changes_nothing(model):
    arguments = ("Hello", TOKENIZER, InterpretationPrompt(TOKENIZER, SEQUENCE), model, [(2, 1)])
    expected = interpret(*arguments)
    before = model.generation_config.do_sample
    model.generation_config.do_sample = True
    try:
        assert interpret(*arguments) == expected
    finally:
        model.generation_config.do_sample = before


def test_no_tokens_are_no_rows(model):
    found = interpret("Hello", TOKENIZER, InterpretationPrompt(TOKENIZER, SEQUENCE), model, [])
    assert found == {
        "prompt": [],
        "interpretation": [],
        "layer": [],
        "token": [],
        "token_decoded": [],
        "relevancy_score": [],
    }


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """One in which the space before "b" merges with it, and "b" with "_"."""
    vocabulary = {token: number for number, token in enumerate(["<s>", "a", "b", "_", "Ġ", "Ġb", "b_"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "b"), ("b", "_")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("sequence", "text", "tokens", "locations"),
    [
        (("a", 0, 0), "a_ _ ", ["a", "_", "Ġ", "_", "Ġ"], [1, 2, 3, 4]),
        (("a", 0, 0, "b"), "a_ _ b", ["a", "_", "Ġ", "_", "Ġb"], [1, 2, 3, 4]),
        (("ab", 0, "a"), "ab_ a", ["a", "b_", "Ġ", "a"], [2]),
        ((0, "b", 7.5), "_ b_ ", ["_", "Ġb", "_", "Ġ"], [0, 1, 2, 3]),
    ],
)
def test_placeholders_are_found_by_the_length_of_what_comes_before(sequence, text, tokens, locations):
    tokenizer = merging_tokenizer()
    prompt = InterpretationPrompt(tokenizer, sequence)
    assert prompt.interpretation_prompt == text
    ids = prompt.interpretation_prompt_model_inputs["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0].tolist()) == tokens
    assert prompt.insert_locations == locations
    assert prompt.located().insert_locations == tuple(locations)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "insert layer 4 is out of range: 0 to 3"),
        ({"tokens_to_interpret": [(5, 0)]}, "layer 5 is out of range"),
        ({"tokens_to_interpret": [(0, 5)]}, "token 5 is out of range"),
        ({"interpretation_prompt": InterpretationPrompt(TOKENIZER, ("text alone",))}, "has no placeholder"),
        ({"bs": 0}, "batch_size is 0"),
        ({"max_new_tokens": 510}, "the model takes 512"),
    ],
)
def test_what_cannot_be_done_is_named(model, options, message):
    arguments = {
        "original_prompt": "Hello",
        "tokenizer": TOKENIZER,
        "interpretation_prompt": InterpretationPrompt(TOKENIZER, SEQUENCE),
        "model": model,
        "tokens_to_interpret": [(2, 1)],
    }
    with pytest.raises(ValueError, match=message):
        interpret(**arguments | options)


def test_a_vector_that_is_not_finite_is_told(model):
    vectors = [torch.ones(32), torch.full((32,), float("nan"))]
    with pytest.warns(UserWarning, match="vector 1 has no interpretation: the vector has NaN or infinity"):
        found = interpret_vectors(vectors, model, InterpretationPrompt(TOKENIZER, SEQUENCE), TOKENIZER)
    assert found[1] == ""
    assert found[0] == interpret_vectors(vectors[:1], model, InterpretationPrompt(TOKENIZER, SEQUENCE), TOKENIZER)[0]
