"""Interpretations at random against a plain loop with the same random numbers, whatever is computed beside them."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from reference import rewritten
from tiny_models import tiny_model
from transformers.interpretation import InterpretationPrompt
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.sampling import Sampling, uniform
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.forward import sampled_tokens

PROMPT = InterpretationPrompt("p", (5, 17, 99, 23, 64, 31), (2, 4), "p")
NEW = 6


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None, initializer_range=0.3)  # so that tokens differ in probability


def vectors(count: int, hidden: int = 32) -> list[torch.Tensor]:
    return list(torch.randn(count, hidden, generator=torch.Generator().manual_seed(0)))


def drawn(shares: list[float], number: float, top_p: float) -> int:
    """The token at which the sum of the shares passes the number, among the fewest most probable that have top_p."""
    kept, sum_of_kept = set(), 0.0
    for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
        if sum_of_kept >= top_p:
            break
        kept.add(token)
        sum_of_kept += shares[token]
    passed = 0.0
    for token, share in enumerate(shares):
        passed += share if token in kept else 0
        if token in kept and passed > number * sum_of_kept:
            return token
    raise AssertionError("no token")


@torch.no_grad()
def slow_sample(model, vector, seed, settings):
    """Whole passes with the vector and without it for every token; token ids, p with, p without."""
    info = {
        1: (list(PROMPT.insert_locations), vector.expand(1, len(PROMPT.insert_locations), -1)),
        "replacing_mode": "normalized",
        "overlay_strength": 1.0,
    }
    text, p, q = list(PROMPT.input_ids), [], []
    for step in range(NEW):
        ids = torch.tensor([text])
        with rewritten(model, [info], len(PROMPT.input_ids)):
            with_it = model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
        without = model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
        score = with_it + settings.guidance * (with_it - without)
        if settings.guidance:
            score[with_it.exp() < settings.plausibility * with_it.exp().max()] = -math.inf
        shares = (score.double() / settings.sampling.temperature).softmax(-1).tolist()
        token = drawn(shares, uniform(seed, step), settings.sampling.top_p)
        text.append(token)
        p.append(float(with_it[token].exp()))
        q.append(float(without[token].exp()))
    return text[len(PROMPT.input_ids) :], p, q


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.8)])
def test_samples_equal_a_plain_loop_with_the_same_random_numbers(model, guidance, temperature, top_p):
    sampling = Sampling(4, temperature, top_p, seed=3)
    settings = InterpretationSettings(max_new_tokens=NEW, guidance=guidance, plausibility=0.05, sampling=sampling)
    some = [(vector, sampling.seed_of(str(n), sample)) for n, vector in enumerate(vectors(2)) for sample in range(4)]
    found = interpret_chunk(model, [Cell(v, PROMPT, seed=seed) for v, seed in some], settings, batch_size=5)
    assert len({one.token_ids for one in found}) > 4
    for (vector, seed), one in zip(some, found):
        tokens, p, q = slow_sample(model, vector, seed, settings)
        assert list(one.token_ids) == tokens
        assert one.probabilities == pytest.approx(p, abs=1e-4)
        assert one.relevancy == pytest.approx([abs(a - b) for a, b in zip(p, q)], abs=1e-4)


def test_a_sample_does_not_depend_on_what_is_computed_beside_it(model):
    sampling = Sampling(3)
    settings = InterpretationSettings(max_new_tokens=NEW, guidance=0.5, sampling=sampling)
    cells = [Cell(v, PROMPT, seed=sampling.seed_of(str(n), s)) for n, v in enumerate(vectors(9)) for s in range(3)]
    whole = interpret_chunk(model, cells, settings, batch_size=27)
    for batch_size in (1, 4):
        order = random.Random(batch_size).sample(range(27), 11)
        some = interpret_chunk(model, [cells[n] for n in order], settings, batch_size=batch_size)
        assert [one.token_ids for one in some] == [whole[n].token_ids for n in order]


def test_a_low_temperature_is_the_best_token_and_equal_seeds_are_equal_samples(model):
    cold = InterpretationSettings(max_new_tokens=NEW, guidance=0.5, sampling=Sampling(1, temperature=1e-30))
    plain = InterpretationSettings(max_new_tokens=NEW, guidance=0.5)
    sampled = interpret_chunk(model, [Cell(v, PROMPT, seed=7) for v in vectors(4)], cold, batch_size=4)
    best = interpret_chunk(model, [Cell(v, PROMPT) for v in vectors(4)], plain, batch_size=4)
    assert [one.token_ids for one in sampled] == [one.token_ids for one in best]
    warm = InterpretationSettings(max_new_tokens=NEW, sampling=Sampling(2))
    one, two, other = interpret_chunk(
        model, [Cell(vectors(1)[0], PROMPT, seed=s) for s in (7, 7, 8)], warm, batch_size=4
    )
    assert one == two != other


def test_tokens_come_as_often_as_they_are_probable():
    p = torch.tensor([0.5, 0.2, 0.25, 0.05, 0.0])
    numbers = [(n + 0.5) / 1000 for n in range(1000)]
    logits, q = p.log().expand(1000, -1), torch.zeros(1, 5)
    rows = torch.zeros(1000, dtype=torch.long)

    def counts(**how):
        how = {"guidance": 0.0, "plausibility": 0.1, "temperature": 1.0, "top_p": 1.0, **how}
        tokens, probabilities = sampled_tokens(logits, q, rows, numbers, **how)
        assert torch.allclose(probabilities, p[tokens])
        return Counter(tokens.tolist())

    assert counts() == {0: 500, 1: 200, 2: 250, 3: 50}
    assert counts(top_p=0.7) == {0: 667, 2: 333}
    assert counts(top_p=1e-9) == {0: 1000}
    squares = [25, 4, 6.25]
    assert counts(temperature=0.5, top_p=0.99) == {
        token: pytest.approx(1000 * squares[token] / sum(squares), abs=1) for token in range(3)
    }
    # q is the same for all tokens, so guidance 1 squares p; below half of the best nothing is plausible
    assert counts(guidance=1.0, plausibility=0.45) == {0: 800, 2: 200}


def test_equals_of_the_last_token_of_the_nucleus_are_in_it_whatever_their_order():
    logits = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log().expand(10, -1)
    numbers = [n / 10 for n in range(10)]
    how = {"guidance": 0.0, "plausibility": 0.1, "temperature": 1.0, "top_p": 0.5}
    tokens, _ = sampled_tokens(logits, logits[:1], torch.zeros(10, dtype=torch.long), numbers, **how)
    assert set(tokens.tolist()) == {0, 1, 2, 3}


def test_numbers_out_of_range_are_told_in_the_cell(model):
    settings = InterpretationSettings(max_new_tokens=NEW, sampling=Sampling(1, top_p=0.9))
    good, huge = vectors(2)
    bad, fine = interpret_chunk(
        model, [Cell(huge * 3e38, PROMPT, seed=1), Cell(good, PROMPT, seed=2)], settings, batch_size=2
    )
    assert bad.status != "ok"
    assert fine.status == "ok"
    nan = torch.full((2, 5), math.nan)
    how = {"guidance": 0.5, "plausibility": 0.1, "temperature": 1.0}
    for top_p in (1.0, 0.5):
        tokens, probabilities = sampled_tokens(nan, nan, torch.tensor([0, 1]), [0.1, 0.9], **how, top_p=top_p)
        assert probabilities.isnan().all()
        assert tokens.tolist() == [0, 0]


def test_random_numbers_are_spread_evenly():
    numbers = sorted(uniform(seed, token) for seed in range(200) for token in range(50))
    assert max(abs(number - n / 10_000) for n, number in enumerate(numbers)) < 0.02  # Kolmogorov–Smirnov at 0.1 %
    seeds = {Sampling(1, seed=s).seed_of(cell, n) for s in range(5) for cell in "abcde" for n in range(5)}
    assert len(seeds) == 125


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((-1, 1.0, 1.0, 0), "samples is -1"),
        ((10**20, 1.0, 1.0, 0), "from 1 to 10,000"),
        ((2.5, 1.0, 1.0, 0), "samples is 2.5: it must be a whole number"),
        ((2, 0.0, 1.0, 0), "temperature is 0.0"),
        ((2, math.inf, 1.0, 0), "temperature is inf"),
        ((2, 1.0, 0.0, 0), "top_p is 0.0"),
        ((2, 1.0, 1.1, 0), "top_p is 1.1"),
        ((2, 1.0, 1.0, 0.5), "seed is 0.5"),
        ((0, 0.5, 1.0, 0), "temperature, top_p and seed are for sampling: say how many samples"),
        ((0, 1.0, 1.0, 3), "say how many samples"),
    ],
)
def test_what_cannot_be_sampled(given, message):
    with pytest.raises(ValueError, match=message):
        Sampling.of(*given)


def test_a_cell_without_a_seed_is_refused(model):
    assert Sampling.of(0, 1.0, 1.0, 0) is None
    settings = InterpretationSettings(sampling=Sampling(1))
    with pytest.raises(ValueError, match="a cell has no seed"):
        interpret_chunk(model, [Cell(vectors(1)[0], PROMPT)], settings, batch_size=1)
