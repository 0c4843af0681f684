"""Mappings between spaces: least squares against numpy's, patching from another model, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import reference_greedy
from tiny_models import tiny_model
from tiny_tokenizer import SPECIAL, VOCABULARY, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.interpretation import AffineMap, InterpretationPromptSpec, fit_affine, interpret, interpret_vectors
from transformers.interpretation.mapping.affine import MappingError

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="ab: _ _ is")
VECTOR_OPTIONS = {"interpretation_prompt": SPEC, "max_new_tokens": 4, "batch_size": 8}
OPTIONS = {"raw": True, **VECTOR_OPTIONS}
TEXTS = ["The quick brown fox", "jumps over", "the lazy dog, and back again: 0123456789", "x"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def other():
    """Another width, depth and weights."""
    return tiny_model(
        vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=3
    )


@torch.no_grad()
def states_of(model, text, layer, tokenizer=TOKENIZER):
    ids = tokenizer.encode(text, add_special_tokens=False)
    return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0].double().numpy()


def pairs(model, other, skip=1):
    sources = np.concatenate([states_of(other, text, 2)[skip:] for text in TEXTS])
    targets = np.concatenate([states_of(model, text, 1)[skip:] for text in TEXTS])
    return sources, targets


def fit(model, other, **options):
    given = {"source_layer": 2, "target_layer": 1, "target_model": model, **options}
    return fit_affine(other, TOKENIZER, TEXTS, **given)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_the_affine_map_is_numpys(model, other, skip):
    sources, targets = pairs(model, other, skip)
    solution = np.linalg.lstsq(np.c_[sources, np.ones(len(sources))], targets, rcond=None)[0]
    found = fit(model, other, skip=skip)
    assert found.weight.dtype == torch.float32
    np.testing.assert_allclose(found.weight, solution[:-1], atol=1e-4)
    np.testing.assert_allclose(found.bias, solution[-1], atol=1e-4)
    mapped = found(torch.tensor(sources, dtype=torch.bfloat16))
    np.testing.assert_allclose(mapped, sources @ solution[:-1] + solution[-1], atol=0.2)


def test_a_ridge_is_least_squares_with_a_row_for_each_penalty(model, other):
    sources, targets = pairs(model, other)
    centred, width = sources - sources.mean(0), sources.shape[1]
    penalty = np.sqrt(0.1 * len(sources) * centred.var(0).mean()) * np.eye(width)
    stacked = np.r_[centred, penalty], np.r_[targets - targets.mean(0), np.zeros((width, targets.shape[1]))]
    weight = np.linalg.lstsq(*stacked, rcond=None)[0]
    found = fit(model, other, ridge=0.1)
    np.testing.assert_allclose(found.weight, weight, atol=1e-5)
    np.testing.assert_allclose(found.bias, targets.mean(0) - sources.mean(0) @ weight, atol=1e-4)
    assert fit_affine(other, TOKENIZER, TEXTS[:1], source_layer=2, target_layer=1, ridge=0.1).weight.shape == (24, 24)


def test_a_layer_onto_itself_is_the_identity(model):
    found = fit_affine(model, TOKENIZER, TEXTS, source_layer=2, target_layer=2)
    torch.testing.assert_close(found.weight, torch.eye(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.bias, torch.zeros(32), atol=1e-4, rtol=0)


def test_tokens_of_different_tokenizers_are_paired_where_they_end(model, other):
    """The other tokenizer has the pair of letters "ab" as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, "ab"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    merging = PreTrainedTokenizerFast(tokenizer_object=backend)
    wide = tiny_model(vocab_size=VOCABULARY + 1)
    texts = ["xabyab", "cab dab lab", "0123456789abcdefghijklmnop", "and so on"]
    found = fit_affine(
        other, TOKENIZER, texts, source_layer=1, target_layer=1, target_model=wide, target_tokenizer=merging
    )
    sources, targets = [], []
    for text in texts:
        mine, theirs = states_of(other, text, 1), states_of(wide, text, 1, merging)
        kept = [i for i in range(len(text)) if text[i : i + 2] != "ab"]
        assert len(kept) == len(theirs)
        sources += [mine[i] for i in kept[1:]]
        targets += list(theirs[1:])
    solution = np.linalg.lstsq(np.c_[np.array(sources), np.ones(len(sources))], np.array(targets), rcond=None)[0]
    np.testing.assert_allclose(found.weight, solution[:-1], atol=2e-3)


def test_a_map_is_kept_in_a_file(tmp_path):
    made = AffineMap(torch.randn(3, 2), torch.randn(2))
    made.save(tmp_path / "map.safetensors")
    loaded = AffineMap.load(tmp_path / "map.safetensors")
    assert torch.equal(loaded.weight, made.weight)
    assert torch.equal(loaded.bias, made.bias)


@pytest.mark.parametrize("identity", [None, lambda vectors: vectors, dict.fromkeys(range(5), torch.clone)])
def test_patching_a_model_into_itself_is_interpreting_it(model, identity):
    given = {"layers": [0, 2, 4], "deep_gain": 1, **OPTIONS}  # mapped states are as shallow as their insert layer
    plain = interpret(model, TOKENIZER, "Hi", **given)
    assert interpret(model, TOKENIZER, "Hi", source_model=model, mapping=identity, **given) == plain


def test_another_models_embeddings_are_mapped_layer_by_layer(model, other):
    maps = {layer: AffineMap(torch.randn(24, 32), torch.randn(32)) for layer in (1, 3)}
    found = interpret(model, TOKENIZER, "Hey", layers=[1, 3], source_model=other, mapping=maps, **OPTIONS)
    ids = TOKENIZER.encode("Hey", add_special_tokens=False)
    assert [(record.layer_idx, record.token_idx) for record in found] == [(y, x) for y in (1, 3) for x in range(4)]
    assert found[0].prompt_output == TOKENIZER.decode(reference_greedy(other, ids, {}, 1), skip_special_tokens=True)
    states = torch.tensor(np.stack([states_of(other, "Hey", layer) for layer in (1, 3)])).float()
    vectors = torch.cat([maps[layer](states[row]) for row, layer in enumerate((1, 3))])
    explained = interpret_vectors(model, TOKENIZER, vectors, **VECTOR_OPTIONS)
    prompts_alone = [record for record in found if record.token_source == "prompt"]
    assert [record.interpretation for record in prompts_alone] == [record.interpretation for record in explained]
    again = interpret_vectors(model, TOKENIZER, states[0], mapping=maps[1], **VECTOR_OPTIONS)
    assert [record.interpretation for record in again] == [record.interpretation for record in explained[:3]]


def test_the_source_reads_with_a_tokenizer_of_its_own(model, other):
    chat = tiny_tokenizer(chat=True)
    mapping = AffineMap(torch.randn(24, 32), torch.randn(32))
    options = {**OPTIONS, "raw": False, "layers": 2, "tokens": "last"}
    found = interpret(model, TOKENIZER, "Hey", source_model=other, source_tokenizer=chat, mapping=mapping, **options)
    assert found[0].prompt == "<s>user:Hey</s><s>assistant:"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (None, "the source's hidden size is 24 and the target's 32: give a mapping from one to the other, such as fit"),
        ({3: torch.clone}, r"the mapping has the source layers \[3\], and nothing for layer 2"),
        (lambda vectors: vectors, r"the mapping made torch.float32 \[1, 24\] of \[1, 24\]; expected .*, \[1, 32\]"),
        (lambda vectors: 0, r"the mapping made a int of \[1, 24\]; expected"),
        (lambda vectors: torch.ones(1, 32).long(), r"the mapping made torch.int64 \[1, 32\] of"),
        (AffineMap(torch.ones(7, 32), torch.ones(32)), "vectors of size 24 for a map that takes 7"),
    ],
)
def test_what_does_not_fit_is_named(model, other, mapping, message):
    with pytest.raises(MappingError, match=message):
        interpret(model, TOKENIZER, "Hi", layers=2, source_model=other, mapping=mapping, **OPTIONS)


def test_a_dict_of_layers_is_none_for_vectors(model):
    with pytest.raises(MappingError, match=r"source layers \[1\], and nothing for vectors that come from no layer"):
        interpret_vectors(model, TOKENIZER, torch.ones(1, 24), mapping={1: torch.clone}, **VECTOR_OPTIONS)


def test_layers_are_the_sources_and_insert_layers_the_targets(model, other):
    mapping = AffineMap(torch.ones(24, 32), torch.ones(32))
    given = {"source_model": other, "mapping": mapping, "tokens": "last", **OPTIONS}
    with pytest.raises(ValueError, match="layers: 4 is out of range: there are 4"):
        interpret(model, TOKENIZER, "Hi", layers=4, **given)
    assert interpret(model, TOKENIZER, "Hi", layers=":4", insert_layer="same", **given)[-1].layer_idx == 3
    other.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            interpret(model, TOKENIZER, "Hi", **given)
    finally:
        other.eval()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["abcdef"], {}, "5 tokens for 32 dimensions: a map needs more text, or a ridge"),
        (["a", "b"], {}, "the texts have no tokens to fit a map on"),
        (TEXTS, {"ridge": -1.0}, "ridge is -1.0 and skip 1: neither can be less than 0"),
        (TEXTS, {"source_layer": 5}, "layer 5 is out of range"),
    ],
)
def test_what_cannot_be_fitted_is_named(model, texts, options, message):
    with pytest.raises(ValueError, match=message):
        fit_affine(model, TOKENIZER, texts, **{"source_layer": 2, "target_layer": 1, **options})


def test_a_file_and_tensors_that_are_no_map(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2, 2)}, str(tmp_path / "half.safetensors"))
    with pytest.raises(MappingError, match=r"half.safetensors holds \['weight'\]; an affine map has bias and weight"):
        AffineMap.load(tmp_path / "half.safetensors")
    with pytest.raises(MappingError, match=r"weight \[2, 3\] and bias \[2\] do not fit"):
        AffineMap(torch.ones(2, 3), torch.ones(2))
