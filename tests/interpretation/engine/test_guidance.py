"""Guided decoding against two plain passes per token, and against the library's own guidance."""

from __future__ import annotations

import math

import pytest
import torch
from reference import rewritten
from tiny_models import available_families, tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, InterpretationPromptSpec
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.forward import guided_tokens
from transformers.interpretation.models.kv_cache import empty_cache

PROMPT = InterpretationPrompt("p", (5, 17, 99, 23, 64, 31), (2, 4), "p")
NEW = 6
TOLERANCE = 1e-4
REFUSED = {"bloom"} & {family.model_type for family in available_families() if empty_cache(tiny_model("bloom")) is None}
"""The older layout of Bloom's cache has no dimension of its own for rows."""
FAMILIES = sorted({family.model_type for family in available_families()} - REFUSED)


def vectors(count: int, hidden: int = 32) -> list[torch.Tensor]:
    return list(torch.randn(count, hidden, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def slow_guided(model, prompt, vector, guidance, plausibility, insert_layer=1):
    """Whole passes with the vector and without it for every token; token ids, p with, p without."""
    info = {
        insert_layer: (list(prompt.insert_locations), vector.expand(1, len(prompt.insert_locations), -1)),
        "replacing_mode": "normalized",
        "overlay_strength": 1.0,
    }
    text, p, q = list(prompt.input_ids), [], []
    while len(text) < len(prompt.input_ids) + NEW:
        ids = torch.tensor([text])
        with rewritten(model, [info], len(prompt.input_ids)):
            with_it = model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
        without = model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
        score = with_it + guidance * (with_it - without)
        score[with_it.exp() < plausibility * with_it.exp().max()] = -math.inf
        token = int(score.argmax())
        text.append(token)
        p.append(float(with_it[token].exp()))
        q.append(float(without[token].exp()))
    return text[len(prompt.input_ids) :], p, q


@pytest.mark.parametrize("family", FAMILIES)
def test_guided_interpretations_equal_two_plain_passes_per_token(family):
    model = tiny_model(family, eos_token_id=None)
    settings = InterpretationSettings(max_new_tokens=NEW, guidance=1.5, plausibility=0.05)
    some = vectors(3)
    raw = interpret_chunk(
        model, [Cell(v, PROMPT) for v in some], InterpretationSettings(max_new_tokens=NEW), batch_size=2
    )
    found = interpret_chunk(model, [Cell(v, PROMPT) for v in some], settings, batch_size=2)
    assert [one.token_ids for one in found] != [one.token_ids for one in raw]
    for vector, one in zip(some, found):
        tokens, p, q = slow_guided(model, PROMPT, vector, 1.5, 0.05)
        assert list(one.token_ids) == tokens
        assert one.probabilities == pytest.approx(p, abs=TOLERANCE)
        assert one.relevancy == pytest.approx([abs(a - b) for a, b in zip(p, q)], abs=TOLERANCE)


def test_without_a_bound_it_is_the_librarys_guidance():
    model = tiny_model(eos_token_id=None)
    settings = InterpretationSettings(max_new_tokens=NEW, guidance=0.7, plausibility=0.0)
    ids = torch.tensor([PROMPT.input_ids])
    for vector in vectors(4):
        (found,) = interpret_chunk(model, [Cell(vector, PROMPT)], settings, batch_size=1)
        info = {1: ([2, 4], vector.expand(1, 2, -1)), "replacing_mode": "normalized", "overlay_strength": 1.0}
        text = model.generate_interpret(
            ids,
            attention_mask=torch.ones_like(ids),
            insert_info=[info],
            guidance_scale=1.7,
            negative_prompt_ids=ids,
            do_sample=False,
            max_new_tokens=NEW,
        )
        assert list(found.token_ids) == text[0, ids.shape[1] :].tolist()


def test_no_guidance_is_raw_argmax_whatever_the_bound():
    model = tiny_model(eos_token_id=None)
    cells = [Cell(vector, PROMPT) for vector in vectors(5)]
    raw = interpret_chunk(model, cells, InterpretationSettings(max_new_tokens=NEW), batch_size=5)
    bounded = InterpretationSettings(max_new_tokens=NEW, guidance=0.0, plausibility=0.9)
    assert interpret_chunk(model, cells, bounded, batch_size=5) == raw


def test_only_plausible_tokens_are_chosen():
    p = torch.tensor([[0.5, 0.3, 0.04, 0.16]]).log()
    q = torch.tensor([[0.1, 0.1, 0.1, 0.7], [0.7, 0.1, 0.0001, 0.2]]).log()
    row = torch.tensor([1])
    for guidance, plausibility, token in [(0.0, 0.1, 0), (1.0, 0.1, 1), (1.0, 0.05, 2), (9.0, 0.7, 0), (1.0, 1.0, 0)]:
        best, probability = guided_tokens(p, q, row, guidance, plausibility)
        assert (int(best), float(probability)) == (token, pytest.approx(float(p[0, token].exp())))


@pytest.mark.parametrize("plausibility", [0.0, 0.1, 1.0])
def test_every_row_is_scored_as_the_whole_vocabulary_would_be(plausibility):
    """Against all scores of all tokens, in more rows than are read at once, with ties and with a row that has NaN."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-8, 8, (21, 50), generator=generator).float() / 4  # quarters: many are equal
    without = torch.randint(-8, 8, (5, 50), generator=generator).float() / 4
    rows = torch.randint(5, (21,), generator=generator)
    logits[13, 7] = math.nan
    tokens, probabilities = guided_tokens(logits, without, rows, 0.5, plausibility)
    for row in range(21):
        if row == 13:
            assert math.isnan(probabilities[row])
            continue
        score = logits[row] + 0.5 * (logits[row] - without[rows[row]])
        p = logits[row].softmax(-1)
        score[p < plausibility * p.max() * (1 - 1e-6)] = -math.inf
        assert int(tokens[row]) == int((score == score.max()).nonzero()[0])  # the first of equals
        assert float(probabilities[row]) == pytest.approx(float(p[tokens[row]]))


def test_tokens_that_a_model_never_says_stay_unsaid():
    p = torch.tensor([[0.0, -math.inf, -1.0]])
    best, _ = guided_tokens(p, torch.tensor([[0.0, -math.inf, -math.inf]]), torch.tensor([0]), 1.0, 0.0)
    assert int(best) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"guidance": math.inf}, "guidance is inf"),
        ({"plausibility": 1.5}, "plausibility is 1.5"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        InterpretationSettings(**changes)


def test_rows_end_at_the_stop_of_their_prompt_and_in_loops():
    """Against the same rows without a stop: each is its beginning, up to the first token that ends it."""
    tokenizer, model = tiny_tokenizer(), tiny_model(vocab_size=VOCABULARY, eos_token_id=None)
    spec = InterpretationPromptSpec("p", sequence=("Hi: ", 0, 0))
    settings = InterpretationSettings(max_new_tokens=20)
    some = vectors(40)
    whole = interpret_chunk(model, [Cell(v, spec.build(tokenizer)) for v in some], settings, batch_size=16)
    texts = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in whole]
    letter = max(set("".join(texts)), key=lambda c: sum(text.find(c) > 0 for text in texts))
    prompt = InterpretationPromptSpec("p", sequence=("Hi: ", 0, 0), stop=letter).build(tokenizer)
    found = interpret_chunk(model, [Cell(v, prompt) for v in some], settings, batch_size=16)
    ended = set()
    for one, long in zip(found, whole):
        end = next((n for n in range(1, 21) if prompt.stop.reached_by(long.token_ids[:n])), 20)
        assert one.token_ids == long.token_ids[:end]
        assert one.probabilities == pytest.approx(long.probabilities[:end], abs=TOLERANCE)
        assert one.relevancy == pytest.approx(long.relevancy[:end], abs=TOLERANCE)
        assert one.ended_by == (prompt.stop.reached_by(one.token_ids) or "length")
        ended.add(one.ended_by)
    assert "stop" in ended
