"""The engine against the slow and obvious way: one cell at a time, `generate_interpret` and two full passes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from decode_reference import FAMILIES, ONE_TOKEN, OTHER, PROMPT, SETTINGS, check, vectors
from tiny_models import tiny_model
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.kv_cache import empty_cache
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    model = tiny_model(family)
    check(model, [Cell(v, prompt) for prompt in (PROMPT, OTHER) for v in vectors(model, 3)], SETTINGS)


@pytest.mark.parametrize("family", sorted({"mistral", "gemma2", "gpt_oss"} & set(FAMILIES)))
def test_sliding_windows_are_kept_to_or_refused(family):
    model = tiny_model(family, sliding_window=4)
    cells = [Cell(v, OTHER) for v in vectors(model, 3)]
    if hasattr(empty_cache(model), "layers"):
        check(model, cells, SETTINGS)
    else:
        with pytest.raises(UnsupportedModelError, match=r"19 tokens .* more than the sliding window of 4"):
            interpret_chunk(model, cells, SETTINGS, batch_size=8)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_that_end_early_and_rows_that_never_end(ends_often, batch_size):
    found = check(ends_often, [Cell(v, PROMPT) for v in vectors(ends_often, 24)], SETTINGS, batch_size)
    ends = ends_often.generation_config.eos_token_id
    lengths = {len(text.token_ids) for text in found}
    assert min(lengths) < SETTINGS.max_new_tokens == max(lengths)
    for text in found:
        assert not set(text.token_ids[:-1]) & set(ends), "nothing follows the first end-of-sequence token"
        assert (text.token_ids[-1] in ends) or len(text.token_ids) == SETTINGS.max_new_tokens


def test_a_single_end_of_sequence_id(ends_often):
    ends_often.generation_config.eos_token_id = ends_often.generation_config.eos_token_id[0]
    found = check(ends_often, [Cell(v, PROMPT) for v in vectors(ends_often, 24)], SETTINGS)
    assert any(len(text.token_ids) < SETTINGS.max_new_tokens for text in found)


@pytest.mark.parametrize("insert_layer", [0, 3, (1, 2)])
@pytest.mark.parametrize(
    "mode, strength",
    [
        *(("normalized", 1.0), ("normalized", (0.4, 1.0)), ("addition", 2.0)),
        *(("norm_matched", 1.0), ("norm_matched", 0.4), ("norm_matched_addition", (2.0, 0.5))),
    ],
)
def test_insert_layers_and_modes(llama, insert_layer, mode, strength):
    settings = replace(SETTINGS, insert_layer=insert_layer, replacing_mode=mode, overlay_strength=strength)
    check(llama, [Cell(v, OTHER) for v in vectors(llama, 2)], replace(settings, max_new_tokens=5))


def test_cells_of_one_batch_at_layers_of_their_own(llama):
    one, other = vectors(llama, 2)
    cells = [Cell(v, PROMPT, layer) for layer in (3, (0, 2), None) for v in (one, other)]
    found = check(llama, cells, SETTINGS)
    assert len({text.token_ids for text in found}) == 6


def test_a_cell_that_does_not_say_where_it_comes_from(llama):
    cells, settings = [Cell(vectors(llama, 1)[0], PROMPT)], replace(SETTINGS, insert_layer="same")
    with pytest.raises(ValueError, match="insert_layer is same, and a cell does not say which layer"):
        interpret_chunk(llama, cells, settings, batch_size=1)


@pytest.mark.parametrize("mode", ["norm_matched", "norm_matched_addition"])
def test_a_zero_vector_fails_alone_where_norms_are_matched(llama, mode):
    good = vectors(llama, 2)
    settings = replace(SETTINGS, replacing_mode=mode)
    cells = [Cell(v, PROMPT) for v in (good[0], torch.zeros_like(good[0]), good[1])]
    found = interpret_chunk(llama, cells, settings, batch_size=8)
    assert found[1].status == "the vector is zero, or its norm out of range in torch.float32: no direction to scale"
    assert found[::2] == interpret_chunk(llama, cells[::2], settings, batch_size=8)


def test_several_prompts_in_any_order(llama):
    cells = [Cell(v, prompt) for v in vectors(llama, 6) for prompt in (PROMPT, OTHER, ONE_TOKEN)]
    random.Random(0).shuffle(cells)
    check(llama, cells, SETTINGS, batch_size=4)


def test_one_token_prompt_and_one_new_token(llama):
    check(llama, [Cell(v, ONE_TOKEN) for v in vectors(llama, 3)], replace(SETTINGS, max_new_tokens=1))


def test_sampling_and_penalties_of_the_checkpoint_do_not_count(llama):
    cells = [Cell(v, PROMPT) for v in vectors(llama, 4)]
    expected = interpret_chunk(llama, cells, SETTINGS, batch_size=4)
    plain = llama.generation_config.to_dict()
    llama.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, min_new_tokens=3)
    try:
        assert interpret_chunk(llama, cells, SETTINGS, batch_size=4) == expected
    finally:
        llama.generation_config.update(**{key: plain.get(key) for key in ("do_sample", "temperature")})
        llama.generation_config.update(repetition_penalty=1.0, min_new_tokens=None)


def test_nothing_to_do(llama):
    assert interpret_chunk(llama, [], SETTINGS, batch_size=8) == []


def test_the_embedded_model(embedded_model, embedded_tokenizer):
    ids = embedded_tokenizer.encode("The capital of Japan is")
    with torch.no_grad():
        states = embedded_model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    text = "Syria: a country in the Middle East\nSamsung: a company\n _"
    prompt = InterpretationPrompt.from_text(embedded_tokenizer, text)
    settings = InterpretationSettings(max_new_tokens=6)
    check(embedded_model, [Cell(states[layer][0, -1], prompt) for layer in (0, 12, 24, 30)], settings)


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, "8"])
def test_wrong_batch_size(llama, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size!r}: give a whole number"):
        interpret_chunk(llama, [Cell(vectors(llama, 1)[0], PROMPT)], SETTINGS, batch_size=batch_size)
