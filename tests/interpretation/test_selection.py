"""Indices and slices mean what Python means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.interpretation.selection import Selection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", range(31)),
        ("0,5,10", (0, 5, 10)),
        ("10, 0,5", (0, 5, 10)),
        ("0:30:5", range(0, 30, 5)),
        ("-1", (30,)),
        ("last", (30,)),
        ("-3:", (28, 29, 30)),
        ("::-10", (0, 10, 20, 30)),
        ("25:99", range(25, 31)),
        ("0,0:2,1,-31", (0, 1)),
    ],
)
def test_the_command_lines_syntax(text, expected):
    assert Selection(text).resolve(31) == tuple(expected)


@given(st.integers(1, 40), *[st.none() | st.integers(-50, 50)] * 3)
def test_slices_are_pythons(length, start, stop, step):
    if step == 0:
        with pytest.raises(ValueError, match="step 0"):
            Selection.of(slice(start, stop, step))
        return
    expected = tuple(sorted(list(range(length))[start:stop:step]))
    selection = Selection.of(slice(start, stop, step))
    if expected:
        assert selection.resolve(length) == expected
    else:
        with pytest.raises(ValueError, match="selects none"):
            selection.resolve(length)


def test_what_python_users_write():
    assert Selection.of(None).is_all
    assert Selection.of("all").is_all
    assert not Selection.of(slice(None)).is_all
    assert Selection.of(3).resolve(9) == (3,)
    assert Selection.of([8, -1, 2]).resolve(9) == (2, 8)
    assert Selection.of(range(0, 9, 4)).resolve(9) == (0, 4, 8)
    assert Selection.of(slice(2, None, 3)).text == "2::3"


@given(st.lists(st.integers(-12, 12), min_size=1, max_size=4), st.integers(1, 9))
def test_indices_out_of_range_are_refused(indices, length):
    selection = Selection.of(indices)
    if all(-length <= index < length for index in indices):
        assert set(selection.resolve(length)) == {range(length)[index] for index in indices}
    else:
        with pytest.raises(ValueError, match=rf"is out of range: there are {length} \(0 to {length - 1}"):
            selection.resolve(length)


@given(st.text(max_size=8) | st.text("0123456789:,-+ al", max_size=8))
def test_any_text_is_indices_or_a_clear_error(text):
    try:
        found = Selection(text).resolve(10)
    except ValueError as error:
        assert 0 < len(str(error)) < 200
    else:
        assert found == tuple(sorted(set(found)))
        assert set(found) <= set(range(10))


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "a", "1:2:3:4", "1.5", "0x1", "--1", "1e3", "٣", "9" * 5000, "x" * 10**7]
)
def test_nonsense_is_named(text):
    with pytest.raises(ValueError, match="is not an index") as caught:
        Selection(text)
    assert len(str(caught.value)) < 200
