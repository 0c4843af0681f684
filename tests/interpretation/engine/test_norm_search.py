"""Chosen strengths against one pass at a time over the rewritten model."""

from __future__ import annotations

import pytest
import torch
from reference import reference_pass
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, interpret_vectors
from transformers.interpretation.engine.norm_search import NORMS, choose_strengths
from transformers.interpretation.engine.settings import InterpretationSettings

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="ab: _ _ is")
PROMPT = SPEC.build(TOKENIZER)
VECTORS = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1e-3], [1], [1], [40], [1]])


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@torch.no_grad()
def tried(model, vector, mode, layer):
    """Norms, self-similarities and entropies, the slow way."""
    ids, places = list(PROMPT.input_ids), list(PROMPT.insert_locations)
    plain = reference_pass(model, ids, {})[0][layer]
    usual = torch.stack([plain[i].norm() for i in range(len(ids)) if i not in places]).median()
    for factor in NORMS:
        norm = float(factor * usual)
        embedding = (vector / vector.norm() * norm).expand(1, len(places), -1)
        info = {layer: (places, embedding), "replacing_mode": mode, "overlay_strength": 1.0}
        logits = reference_pass(model, ids, info)[1][-1]
        states, _ = reference_pass(model, [*ids, int(logits.argmax())], info, len(ids))
        arrived, probabilities = states[-1][-1], logits.softmax(-1)
        similarity = float(arrived @ vector / (arrived.norm() * vector.norm()))
        yield norm, similarity, float(torch.distributions.Categorical(probabilities).entropy())


@pytest.mark.parametrize(("mode", "layer"), [("normalized", 1), ("addition", 2)])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_figures_and_choice(model, mode, layer, batch_size):
    settings = InterpretationSettings(insert_layer=layer, replacing_mode=mode)
    choices = choose_strengths(model, PROMPT, list(VECTORS), settings, batch_size=batch_size)
    chosen = set()
    for vector, choice in zip(VECTORS, choices):
        norms, similarities, entropies = zip(*tried(model, vector, mode, layer))
        assert choice.norms == pytest.approx(norms, rel=1e-5)
        assert choice.self_similarity == pytest.approx(similarities, abs=1e-5)
        assert choice.entropy == pytest.approx(entropies, abs=1e-4)

        def scaled(figures):
            return [(figure - min(figures)) / (max(figures) - min(figures)) for figure in figures]

        scores = [similar - unsure for similar, unsure in zip(scaled(similarities), scaled(entropies))]
        best = scores.index(max(scores))
        assert choice.factor * float(vector.norm()) == pytest.approx(norms[best], rel=1e-5)
        chosen.add(best)
    assert len(chosen) > 1, "one strength for all would pass this test"


def test_a_vectors_own_norm_does_not_matter(model):
    plain = {"interpretation_prompt": SPEC, "insert_layer": 1, "guidance": 0, "max_new_tokens": 4}
    options = {**plain, "strength": "auto"}
    small, large = (interpret_vectors(model, TOKENIZER, VECTORS * factor, **options) for factor in (1, 1000))
    assert [record.interpretation for record in small] == [record.interpretation for record in large]
    settings = InterpretationSettings(max_new_tokens=4)
    choices = choose_strengths(model, PROMPT, list(VECTORS), settings, batch_size=64)
    scaled = torch.stack([choice.factor * vector for choice, vector in zip(choices, VECTORS)])
    by_hand = interpret_vectors(model, TOKENIZER, scaled, **plain)
    assert [record.interpretation for record in small] == [record.interpretation for record in by_hand]
    expected = [f"vector {i} × {choice.factor:.3g}" for i, choice in enumerate(choices)]
    assert [record.current_token for record in small] == expected == list(small[0].prompt_token_list)


def test_a_number_multiplies(model):
    options = {"interpretation_prompt": SPEC, "max_new_tokens": 4}
    found = interpret_vectors(model, TOKENIZER, VECTORS, strength=3, **options)
    expected = interpret_vectors(model, TOKENIZER, 3 * VECTORS, **options)
    assert [record.interpretation_prob for record in found] == [record.interpretation_prob for record in expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": "automatic"}, "strength is 'automatic'"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"strength": "auto", "replacing_mode": "norm_matched"}, "ignores how large"),
        ({"strength": "auto", "insert_layer": "same"}, "insert layer same"),
    ],
)
def test_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        interpret_vectors(model, TOKENIZER, VECTORS, interpretation_prompt=SPEC, **options)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_vector_without_a_direction(model, value):
    vectors = VECTORS.clone()
    vectors[3] = value
    with pytest.raises(ValueError, match="vector 3 has norm"):
        interpret_vectors(model, TOKENIZER, vectors, interpretation_prompt=SPEC, strength="auto")
