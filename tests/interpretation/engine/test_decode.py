"""The engine against the slow and obvious way: one cell at a time, `generate_interpret` and two full passes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.engine.cell import Cell, Interpretation
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.kv_cache import empty_cache
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

# The older layout of Bloom's cache has no dimension of its own for rows.
REFUSED = {"bloom"} & {family.model_type for family in available_families() if empty_cache(tiny_model("bloom")) is None}
FAMILIES = [family.model_type for family in available_families() if family.model_type not in REFUSED]
TOLERANCE = 1e-4
SETTINGS = InterpretationSettings(max_new_tokens=10)


def prompt_of(ids: list[int], placeholders: list[int]) -> InterpretationPrompt:
    return InterpretationPrompt("test", tuple(ids), tuple(placeholders), " ".join(map(str, ids)))


PROMPT = prompt_of([1, 9, 30, 31, 12, 13, 40], [2, 3])
OTHER = prompt_of([60, 33, 34, 35, 61, 62, 63, 64, 65], [1, 3])
ONE_TOKEN = prompt_of([17], [0])


def vectors(model: torch.nn.Module, count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, model.config.hidden_size, generator=generator))


@torch.no_grad()
def reference(model: torch.nn.Module, cell: Cell, settings: InterpretationSettings) -> tuple[Interpretation, list]:
    """What the cell must give, and the distance between the two best logits at every token."""
    places = len(cell.prompt.insert_locations)
    layers = settings.insert_layer if cell.insert_layer is None else cell.insert_layer
    entry = (list(cell.prompt.insert_locations), cell.vector.expand(1, places, -1))
    info = [
        {
            **dict.fromkeys([layers] if isinstance(layers, int) else layers, entry),
            "overlay_strength": settings.overlay_strength,
            "replacing_mode": settings.replacing_mode,
        }
    ]
    ids = torch.tensor([cell.prompt.input_ids])
    whole = model.generate_interpret(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        insert_info=info,
    )
    said = whole[0, ids.shape[1] :]
    under = model.forward_interpret(input_ids=whole[:, :-1], insert_info=info).logits[0, ids.shape[1] - 1 :]
    without = model.forward_interpret(input_ids=whole[:, :-1]).logits[0, ids.shape[1] - 1 :]
    probability = under.softmax(-1).gather(-1, said[:, None])[:, 0]
    plain = without.softmax(-1).gather(-1, said[:, None])[:, 0]
    best = under.topk(2).values
    relevancy = (probability - plain).abs()
    expected = Interpretation(*(tuple(values.tolist()) for values in (said, probability, relevancy)))
    return expected, (best[:, 0] - best[:, 1]).tolist()


def assert_equal(found: Interpretation, expected: Interpretation, margins: list[float]) -> None:
    """The same tokens, except after two best logits that lie within the tolerance; the same numbers."""
    assert found.status == "ok"
    assert len(found.token_ids) == len(found.probabilities) == len(found.relevancy)
    for step, margin in enumerate(margins):
        if margin <= TOLERANCE:
            return
        assert found.token_ids[step] == expected.token_ids[step]
        assert found.probabilities[step] == pytest.approx(expected.probabilities[step], abs=TOLERANCE)
        assert found.relevancy[step] == pytest.approx(expected.relevancy[step], abs=TOLERANCE)
    assert len(found.token_ids) == len(expected.token_ids)


def check(model: torch.nn.Module, cells: list[Cell], settings: InterpretationSettings, batch_size: int = 8) -> list:
    found = interpret_chunk(model, cells, settings, batch_size=batch_size)
    assert len(found) == len(cells)
    for cell, interpretation in zip(cells, found):
        assert_equal(interpretation, *reference(model, cell, settings))
    return found


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture
def ends_often(llama):
    """The model with end-of-sequence ids that it says early in some interpretations and never in others."""
    before = llama.generation_config.eos_token_id
    llama.generation_config.eos_token_id = None
    texts = interpret_chunk(llama, [Cell(v, PROMPT) for v in vectors(llama, 24)], SETTINGS, batch_size=24)
    count = Counter(token for text in texts for token in set(text.token_ids))
    llama.generation_config.eos_token_id = [token for token, _ in count.most_common(3)[1:]]
    yield llama
    llama.generation_config.eos_token_id = before


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


def count_positions(model: torch.nn.Module) -> tuple[list[int], torch.utils.hooks.RemovableHandle]:
    counted: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, args, out: counted.append(args[0].numel()))
    return counted, handle


def test_identical_vectors_are_interpreted_once(llama):
    one, other = vectors(llama, 2)
    counted, handle = count_positions(llama)
    try:
        twice = interpret_chunk(llama, [Cell(v, PROMPT) for v in (one, other)], SETTINGS, batch_size=8)
        work = sum(counted)
        many = interpret_chunk(llama, [Cell(v.clone(), PROMPT) for v in (one, other, one, one)], SETTINGS, batch_size=8)
        assert sum(counted) == 2 * work
    finally:
        handle.remove()
    assert many == [*twice, twice[0], twice[0]]


def test_without_surgery_every_text_is_read_once(llama):
    """Beside the prompt's and the cells' own tokens: one for each distinct beginning that somebody goes on from."""
    cells = [Cell(v * scale, PROMPT) for v in vectors(llama, 4) for scale in (1, 1.001, 30)]
    counted, handle = count_positions(llama)
    try:
        texts = [text.token_ids for text in interpret_chunk(llama, cells, SETTINGS, batch_size=64)]
    finally:
        handle.remove()
    beginnings = {text[:end] for text in texts for end in range(1, len(text))}
    own = sum(len(text) - 1 for text in texts)
    assert len(beginnings) < own, "some say the same"
    rest = len(PROMPT.input_ids) - min(PROMPT.insert_locations)
    assert sum(counted) == min(PROMPT.insert_locations) + (len(cells) + 1) * rest + own + len(beginnings)


def test_many_rows_are_rounded_up_and_the_rest_is_read_by_nobody(ends_often):
    counted, handle = count_positions(ends_often)
    cells = [Cell(v, PROMPT) for v in vectors(ends_often, 70)]
    try:
        found = interpret_chunk(ends_often, cells, SETTINGS, batch_size=128)
    finally:
        handle.remove()
    steps = counted[2:]  # behind the shared part and the rest of the prompt
    assert len(steps) == SETTINGS.max_new_tokens - 1
    assert all(rows % 8 == 0 if rows >= 128 else rows % 4 == 0 if rows >= 64 else rows % 2 == 0 for rows in steps)
    assert found == check(ends_often, cells, SETTINGS, 128)


def test_a_cell_that_goes_wrong_leaves_the_others_alone(llama):
    good = vectors(llama, 3)
    bad = [torch.full_like(good[0], float("nan")), good[0].clone()]
    bad[1][3] = float("inf")
    found = interpret_chunk(llama, [Cell(v, PROMPT) for v in (good[0], *bad, *good[1:])], SETTINGS, batch_size=8)
    assert found[0::3] + found[4:] == interpret_chunk(llama, [Cell(v, PROMPT) for v in good], SETTINGS, batch_size=8)
    for text in found[1:3]:
        assert text == Interpretation((), (), (), "the vector has NaN or infinity in torch.float32")


def test_numbers_out_of_range_inside_the_model(llama):
    cells = [Cell(v, PROMPT) for v in vectors(llama, 6)]
    expected = interpret_chunk(llama, cells, SETTINGS, batch_size=8)
    struck = expected[2].token_ids[3]

    def break_down(module, args, logits):
        return logits.masked_fill(logits.argmax(-1, keepdim=True) == struck, float("nan"))

    handle = llama.get_output_embeddings().register_forward_hook(break_down)
    try:
        found = interpret_chunk(llama, cells, SETTINGS, batch_size=8)
    finally:
        handle.remove()
    for after, before in zip(found, expected):
        if struck not in before.token_ids:
            assert after.token_ids == before.token_ids
            continue
        step = before.token_ids.index(struck)
        assert after == Interpretation((), (), (), f"the logits have NaN or infinity at new token {step}")
    assert any(text.status == "ok" for text in found)


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


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"insert_layer": -1}, "insert_layer is -1: count decoder layers from 0"),
        ({"insert_layer": [1, 3, 1]}, "insert_layer is 1,3,1: name each layer once"),
        ({"insert_layer": "x"}, "insert_layer is 'x': give a decoder layer, several (1,3), or same"),
        ({"insert_layer": ()}, "insert_layer is (): give a decoder layer, several (1,3), or same"),
        ({"insert_layer": 1.5}, "insert_layer is 1.5: give a decoder layer, several (1,3), or same"),
        (
            {"replacing_mode": "add"},
            "replacing_mode is 'add': use one of normalized, addition, norm_matched, norm_matched_addition",
        ),
        (
            {"overlay_strength": [0.5, 2]},
            "overlay_strength is 2: must be in [0, 1] for normalized; use addition for more",
        ),
        ({"overlay_strength": 1.5}, "overlay_strength is 1.5: must be in [0, 1] for normalized; use addition for more"),
        (
            {"overlay_strength": 0.0, "replacing_mode": "addition"},
            "overlay_strength is 0.0: must be finite and > 0 for addition",
        ),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: at least one token is needed"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError) as raised:
        InterpretationSettings(**wrong)
    assert str(raised.value) == message


def test_settings_in_other_words_are_the_same_settings():
    assert InterpretationSettings(insert_layer=[1]) == InterpretationSettings(insert_layer="1")
    assert InterpretationSettings(insert_layer=[1]) == InterpretationSettings()
    assert InterpretationSettings(insert_layer=[3, 1]) == InterpretationSettings(insert_layer="1,3")
    strengths = InterpretationSettings(overlay_strength=torch.tensor([0.5, 1.0]))
    assert strengths == InterpretationSettings(overlay_strength=[0.5, 1])
    assert hash(strengths) == hash(InterpretationSettings(overlay_strength=(0.5, 1)))


def test_wrong_batch_size(llama):
    with pytest.raises(ValueError, match="batch_size is 0"):
        interpret_chunk(llama, [Cell(vectors(llama, 1)[0], PROMPT)], SETTINGS, batch_size=0)
