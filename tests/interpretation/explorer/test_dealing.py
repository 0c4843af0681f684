"""The size of engine calls on several kinds of machines, and how they are shared among clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.interpretation.explorer.dealing import Pace, shares
from transformers.interpretation.explorer.readings import roughly_first


def calls(seconds_of, number=30):
    """Sizes of the first calls on a machine where so many cells take so many seconds."""
    pace, sizes = Pace(), []
    for _ in range(number):
        cells = pace.cells(30)
        pace.note(cells, 30, seconds_of(cells))
        sizes.append(cells)
    return sizes


def test_calls_take_about_a_second_where_time_is_in_proportion_to_cells():
    sizes = calls(lambda cells: cells / 40)
    assert sizes[0] == 16
    assert all(0.5 <= cells / 40 <= 1.2 for cells in sizes[3:])


def test_a_slow_machine_gets_small_calls():
    assert calls(lambda cells: cells / 2)[-1] == 4


def test_calls_grow_where_reading_the_weights_is_what_takes_time():
    """A large model: a call of four cells takes nearly as long as one of sixty-four."""
    sizes = calls(lambda cells: 20 + cells / 20)
    assert min(sizes[4:]) >= 64


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_a_call_in_no_time_is_no_error(seconds):
    assert calls(lambda cells: seconds)[-1] > 16


def test_a_call_that_was_not_filled_changes_nothing():
    pace = Pace()
    pace.note(1, 30, 0.01)
    assert pace.cells(30) == 16


def test_nobody_gets_less_than_a_neighbour_unless_nothing_more_is_wanted():
    assert shares([100, 100, 3], 30) == [14, 13, 3] or shares([100, 100, 3], 30) == [13, 14, 3]
    assert shares([5, 5], 100) == [5, 5]
    assert shares([9, 9, 9], 2) == [1, 1, 0]


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 300))
def test_shares_are_even_and_nothing_is_left(wanted, room):
    dealt = shares(wanted, room)
    assert all(0 <= its <= most for its, most in zip(dealt, wanted))
    assert sum(dealt) == min(room, sum(wanted))
    unsatisfied = [its for its, most in zip(dealt, wanted) if its < most]
    assert all(its <= least + 1 for its in dealt for least in unsatisfied)


@given(st.integers(0, 100))
def test_every_layer_comes_once_and_a_rough_grid_first(n):
    order = roughly_first(range(n))
    assert sorted(order) == list(range(n))
    assert [layer % 4 for layer in order[: -(-n // 4)]] == [0] * -(-n // 4)
