"""A model whose rotary embeddings change with the length of the text: as the library reads it, or not at all."""

from __future__ import annotations

import pytest
import torch
import transformers
from packaging.version import Version
from tiny_models import available_families, tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, interpret, interpret_vectors
from transformers.interpretation.engine.decode import Cell, InterpretationSettings, interpret_chunk
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.rope import short_positions

SHORT, NEW = 24, 10
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def model():
    name = "su" if Version(transformers.__version__) < Version("4.42") else "longrope"  # it was renamed
    rope = {"type": name, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = {"original_max_position_embeddings": SHORT, "max_position_embeddings": 96, "rope_scaling": rope}
    model = tiny_model("phi3", vocab_size=VOCABULARY, **config)
    model.generation_config.eos_token_id = None
    return model


def prompt_of(letters):
    return InterpretationPrompt.from_text(TOKENIZER, "a" * letters + " _ is")


@pytest.mark.parametrize("letters", [1, 10, SHORT, SHORT + 9])
def test_the_engine_reads_as_generate_does(model, letters):
    """Wholly by one set of angles or by the other: the tokens before the placeholder are a pass of their own."""
    prompt, vector = prompt_of(letters), torch.randn(32, generator=torch.Generator().manual_seed(0))
    (found,) = interpret_chunk(model, [Cell(vector, prompt)], InterpretationSettings(max_new_tokens=NEW), batch_size=4)
    info = {1: (list(prompt.insert_locations), vector.view(1, 1, -1)), "overlay_strength": 1.0}
    ids = torch.tensor([prompt.input_ids])
    for use_cache in (True, False):
        options = {"max_new_tokens": NEW, "do_sample": False, "use_cache": use_cache}
        expected = model.generate_interpret(ids, insert_info=[info | {"replacing_mode": "normalized"}], **options)
        assert found.token_ids == tuple(expected[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("letters", [12, 16, SHORT - 1])
def test_a_text_that_outgrows_its_angles_is_refused_before_any_work(model, letters):
    vector, prompt = torch.ones(1, 32), prompt_of(letters)
    with pytest.raises(ValueError, match=f"after {SHORT} the model turns all positions by other angles"):
        interpret_vectors(model, TOKENIZER, vector, interpretation_prompt=prompt, max_new_tokens=NEW)
    with pytest.raises(UnsupportedModelError, match="by other angles"):
        interpret_chunk(model, [Cell(vector[0], prompt)], InterpretationSettings(max_new_tokens=NEW), batch_size=4)


def test_so_is_a_prompt_that_outgrows_them_with_its_output(model):
    options = {"raw": True, "tokens": "last", "layers": 1, "interpretation_prompt": prompt_of(1), "max_new_tokens": 2}
    assert interpret(model, TOKENIZER, "b" * (SHORT + 1), prompt_output_tokens=9, **options)
    assert interpret(model, TOKENIZER, "b" * SHORT, prompt_output_tokens=0, **options)
    with pytest.raises(ValueError, match=rf"example_1: is read from {SHORT} to {SHORT + 1} tokens, and after {SHORT}"):
        interpret(model, TOKENIZER, "b" * SHORT, prompt_output_tokens=1, **options)


@pytest.mark.parametrize("family", available_families(), ids=lambda family: family.model_type)
def test_other_models_have_one_set_of_angles(family):
    assert short_positions(tiny_model(family.model_type)) is None
