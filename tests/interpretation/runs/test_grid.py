"""The cells of a plan, their order, and everything that exceeds a model's limits."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from plans import TOKENIZER, plan_of, problems_of
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.prompts.index_selection import Selection
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt
from transformers.interpretation.runs.chunks import LARGE_PLAN, SMALLEST_CHUNK, chunk_sizes
from transformers.interpretation.runs.grid import Plan, Source


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([None, 1, 3]),
)
def test_chunks_are_the_cells_in_order(n_tokens, n_prompts, n_layers, chunk_cells, samples):
    sources = tuple(
        Source(Example(f"x_{i}", "x"), "x", (5,) * n, tuple(range(n))) for i, n in enumerate(n_tokens, start=1)
    )
    prompts = tuple(InterpretationPrompt(f"p{i}", (5, 6), (1,), "") for i in range(n_prompts))
    plan = Plan(sources, prompts, tuple(range(n_layers)), 0, chunk_cells, samples=samples)
    numbers = [None] if samples is None else range(samples)
    expected = [
        (source, *rest)
        for source in sources
        for rest in itertools.product(prompts, range(n_layers), source.tokens, numbers)
    ]
    chunks = [plan.chunk(index) for index in range(plan.n_chunks)]
    assert [(a.source, a.prompt, a.layer, a.token, a.sample) for chunk in chunks for a in chunk] == expected
    assert plan.n_cells == len(expected)
    assert all(len(chunk) == chunk_cells for chunk in chunks[:-1])


def test_chunks_of_a_large_plan_shrink_towards_its_end():
    for n_cells in (1, 255, 256, 257, LARGE_PLAN - 1):
        sizes = list(chunk_sizes(n_cells, 256))
        assert sum(sizes) == n_cells
        assert set(sizes[:-1]) <= {256}
    for n_cells in (LARGE_PLAN, 3 * LARGE_PLAN):
        sizes = list(chunk_sizes(n_cells, 256))
        assert sum(sizes) == n_cells
        assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
        assert sizes[-2] == SMALLEST_CHUNK
        assert n_cells - 257_000 < sum(size for size in sizes if size == 256) < n_cells - 255_000
        left = n_cells
        for size in sizes:
            assert size <= max(SMALLEST_CHUNK, left / 1000)
            left -= size
    assert list(chunk_sizes(LARGE_PLAN, 8))[:-1] == [8] * (LARGE_PLAN // 8 - 1)


def test_what_is_interpreted():
    raw = Example("fact_1", "abc", raw=True)
    everything = plan_of([raw], prompt_output_tokens=2)
    assert everything.sources[0].tokens == range(5)  # not held one by one: a plan may have 10^8 cells
    assert everything.layers == (0, 1, 2, 3, 4)
    assert everything.sources[0].text == "abc"
    assert TOKENIZER.convert_ids_to_tokens(list(everything.sources[0].input_ids)) == ["a", "b", "c"]
    some = plan_of([raw], prompt_output_tokens=2, tokens=Selection("-1"), layers=Selection("-2:"))
    assert some.sources[0].tokens == (2,)
    assert some.layers == (3, 4)
    assert plan_of([raw], prompt_output_tokens=0).sources[0].tokens == range(3)


def test_other_places_have_one_layer_less():
    raw = Example("fact_1", "abc", raw=True)
    assert plan_of([raw], hook_point="mlp_output").layers == (0, 1, 2, 3)
    assert plan_of([raw], hook_point="mlp_output", layers=Selection("-1")).layers == (3,)
    assert problems_of([raw], hook_point="mlp_input", layers=Selection("4")) == [
        "layers: 4 is out of range: there are 4 (0 to 3, or -1 to -4)"
    ]


def test_a_difference_takes_each_part_in_both_prompts():
    example = Example("x_1", "abc", raw=True, minus="defgh")
    source = plan_of([example], tokens=Selection("last,mean(all),1")).sources[0]
    assert source.text == "abc\n−\ndefgh"
    assert source.tokens == (1, 2, range(3))
    assert TOKENIZER.convert_ids_to_tokens(list(source.minus.input_ids)) == ["d", "e", "f", "g", "h"]
    assert source.minus.tokens == (1, 4, range(5))
    same_length = Example("x_1", "abc", raw=True, minus="abd")
    assert plan_of([same_length], prompt_output_tokens=3).sources[0].tokens == (0, 1, 2)  # of the prompts alone
    turns = plan_of([Example("x_1", "abc", minus="de")], tokens=Selection("last")).sources[0]
    assert turns.text == "[INST] abc [/INST]\n−\n[INST] de [/INST]"
    assert problems_of([example, Example("y_2", "abc", raw=True, minus="z" * 65)], tokens=Selection("all")) == [
        'x_1: tokens: "all" selects 3 of 3 tokens, of the other prompt 5 of 5; '
        "write last, indices that both have, or mean(all)",
        'y_2: "minus" has 65 tokens and 0 new ones; the model takes 64',
        'y_2: tokens: "all" selects 3 of 3 tokens, of the other prompt 65 of 65; '
        "write last, indices that both have, or mean(all)",
    ]
