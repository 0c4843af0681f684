"""Insertion while generating, and embeddings that a callable makes: planned, carried out, refused."""

from __future__ import annotations

import pytest
import torch
from reference import reference_greedy, reference_pass
from tiny_models import tiny_model
from transformers.interpretation.surgery.hooks import surgery
from transformers.interpretation.surgery.insert_info import plan_surgery

HIDDEN = 32
PROMPTS = ([5, 17, 99, 23, 64, 31], [71, 8, 45])
IDS = torch.tensor([[0, 0, 0, *prompt][-6:] for prompt in PROMPTS])
MASK = (IDS != 0).long()


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


def flip(states: torch.Tensor) -> torch.Tensor:
    return states.flip(-1)


def row(entry, mode="normalized", strength=1.0, layer=1) -> dict:
    return {layer: entry, "replacing_mode": mode, "overlay_strength": strength}


def plan(info, *, prompt_length=6, generates=True, cached=0):
    return plan_surgery(
        info,
        n_layers=4,
        hidden_size=HIDDEN,
        batch_size=len(info),
        prompt_length=prompt_length,
        cached_length=cached,
        generates=generates,
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None)


@pytest.mark.parametrize("locations", ["generated", ["generated"], (2, "generated"), ["generated", -1, 0]])
def test_generated_tokens_are_a_location_among_others(locations):
    count = 1 if isinstance(locations, str) else len(locations)
    at = plan([row((locations, vectors(count)), strength=[0.5] * count)]).layers[1]
    assert at.onward.sum() == 1
    assert at.positions[at.onward].tolist() == [6]
    assert len(at.positions) == count


def test_what_a_pass_writes_is_what_the_columns_say():
    at = plan([row((["generated", 2], vectors(2))), {}, row(([0, 5], vectors(2)))]).layers[1]
    for first in range(9):
        for count in range(1, 10):
            entries, columns = at.within(first, count)
            found = list(zip(entries.tolist(), columns.tolist()))
            expected = [
                (entry, column)
                for entry, (position, onward) in enumerate(zip(at.positions.tolist(), at.onward.tolist()))
                for column in range(first, first + count)
                if column == position or (onward and column > position)
            ]
            assert found == expected


@pytest.mark.parametrize("mode", ["normalized", "norm_matched_addition"])
@pytest.mark.parametrize("what", ["embedding", "callable"])
def test_steered_text_in_a_padded_batch_is_the_references(model, mode, what):
    infos = [row(("generated", vectors(1) if what == "embedding" else flip), mode, 0.8), {}]
    generated = model.generate_interpret(
        IDS, attention_mask=MASK, max_new_tokens=6, do_sample=False, pad_token_id=0, insert_info=infos
    )
    expected = [reference_greedy(model, prompt, info, 6) for prompt, info in zip(PROMPTS, infos)]
    assert generated[:, 6:].tolist() == expected
    searched = model.greedy_search_interpret(IDS, attention_mask=MASK, max_length=12, pad_token_id=0, insert_info=infos)
    assert searched[:, 6:].tolist() == expected
    plain = reference_greedy(model, PROMPTS[0], {}, 6)
    assert expected[0][0] == plain[0], "the first token is chosen before any is generated"
    assert expected[0] != plain


def test_nothing_generated_is_nothing_to_steer(model):
    generated = model.generate_interpret(
        IDS[:1], max_new_tokens=1, do_sample=False, pad_token_id=0, insert_info=[row(("generated", vectors(1)))]
    )
    assert generated[0, 6:].tolist() == reference_greedy(model, PROMPTS[0], {}, 1)


def test_a_callable_sees_the_states_that_are_there(model):
    seen = []

    def ablate(states):
        seen.append(states.clone())
        direction = vectors(1)[0, 0] / vectors(1).norm()
        return states - (states @ direction)[:, None] * direction

    info = row(([1, -2], ablate), layer=2)
    with torch.no_grad():
        found = model.forward_interpret(IDS[:1], insert_info=[info], output_hidden_states=True)
        plain = model(IDS[:1], output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(seen[0], plain[[1, 4]], atol=1e-4, rtol=1e-4)
    states, logits = reference_pass(model, PROMPTS[0], info)
    torch.testing.assert_close(found.logits[0], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.hidden_states[2][0], states[2], atol=1e-4, rtol=1e-4)
    assert (found.hidden_states[2][0, [1, 4]] @ vectors(1)[0, 0]).abs().max() < 1e-4


def test_rows_of_one_callable_are_made_together_and_others_apart(model):
    sizes = []

    def double(states):
        sizes.append(len(states))
        return 2 * states

    ids = torch.tensor([PROMPTS[0]] * 3)
    infos = [row(([1, 2], double)), row(([3], lambda states: -states)), row(([0], double))]
    with torch.no_grad():
        found = model.forward_interpret(ids, insert_info=infos).logits
    assert sizes == [3]
    for logits, info in zip(found, infos):
        torch.testing.assert_close(logits, reference_pass(model, PROMPTS[0], info)[1], atol=1e-4, rtol=1e-4)


def test_a_forward_pass_generates_nothing(model):
    with pytest.raises(
        ValueError, match=r"row 0: layer 1, position generated: a single pass generates nothing; give the positions"
    ):
        model.forward_interpret(IDS, insert_info=[row(("generated", vectors(1))), {}])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((["generated", "generated"], vectors(2)), "position generated: given twice"),
        (("generatd", vectors(1)), r'must be a list of integers or slices, or "generated", not \'generatd\''),
        (("generated", vectors(2)), r"positions \['generated'\]: the embedding has shape \[1, 2, 32\] and must have"),
        (("generated", [1.0]), "the embedding must be a floating-point tensor or a callable, not a list"),
    ],
)
def test_what_cannot_be_steered_is_named(entry, message):
    with pytest.raises(ValueError, match=message):
        plan([row(entry)])


@pytest.mark.parametrize(
    ("function", "found"), [(lambda states: states[:, :3], r"\[1, 3\]"), (lambda states: 0, "a int")]
)
def test_a_callable_that_makes_something_else_is_named(model, function, found):
    with pytest.raises(ValueError, match=rf"a callable of insert_info made {found} of hidden states \[1, 32\]"):
        model.forward_interpret(IDS[:1], insert_info=[row(([0], function))])


@pytest.mark.parametrize(
    ("function", "mode", "message"),
    [
        (torch.zeros_like, "norm_matched", "zero embedding"),
        (lambda states: states / 0, "normalized", "NaN or infinity in torch.float32"),
    ],
)
def test_a_callable_that_makes_nothing_to_insert_is_named(model, function, mode, message):
    with pytest.raises(ValueError, match=message):
        model.forward_interpret(IDS[:1], insert_info=[row(([0], function), mode=mode)])


def test_a_callable_may_make_zeros_where_norms_do_not_count(model):
    zeros = model.forward_interpret(IDS[:1], insert_info=[row(([0], torch.zeros_like))]).logits
    expected = model.forward_interpret(IDS[:1], insert_info=[row(([0], torch.zeros(1, 1, HIDDEN)))]).logits
    assert torch.equal(zeros, expected)


def test_gradients_flow_through_a_callable(model):
    shift = vectors(1)[0].clone().requires_grad_()
    with surgery(model, plan([row(([2], lambda states: states + shift))])):
        model(IDS[:1]).logits.sum().backward()
    assert shift.grad.abs().max() > 1e-3
