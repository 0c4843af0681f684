"""Indices and slices mean what Python means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.interpretation.prompts.index_selection import Selection, span_name


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
    assert Selection.of([3, range(2, 5), range(0, 9, 4)]).text == "3,mean(2:5),mean(0:9:4)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean(2:5)", (range(2, 5),)),
        ("mean(all),0", (0, range(9))),
        ("mean(-3:),last, mean(:2)", (8, range(6, 9), range(2))),
        ("mean(7:99),mean( 7 : 9 )", (range(7, 9),)),
        ("mean(::4)", (range(0, 9, 4),)),
        ("mean(5:2:-1)", (range(3, 6),)),
    ],
)
def test_means_come_after_indices(text, expected):
    assert Selection(text).positions(9) == expected


@given(st.integers(1, 40), st.none() | st.integers(-50, 50), st.none() | st.integers(-50, 50))
def test_means_are_over_pythons_slices(length, start, stop):
    expected = range(length)[start:stop]
    selection = Selection(f"mean({'' if start is None else start}:{'' if stop is None else stop})")
    if len(expected):
        assert selection.positions(length) == (expected,)
        assert Selection(span_name(expected)).positions(length) == (expected,)
    else:
        with pytest.raises(ValueError, match="averages none of"):
            selection.positions(length)


def test_a_mean_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"mean\(0:2\) is for tokens alone"):
        Selection("mean(:2)").resolve(5)


def test_each_part_is_taken_in_both_sequences():
    assert Selection("last,0,1:3,mean(all)").pairs(5, 7) == {0: 0, 1: 1, 2: 2, 4: 6, range(5): range(7)}
    assert Selection("1,-3").pairs(3, 7) == {1: 1, 0: 4}  # not in the order of the other's
    assert list(Selection("1,-3").pairs(3, 7)) == [0, 1]
    assert Selection("all").pairs(3, 3) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(ValueError, match=r'"all" selects 3 of 3 tokens, of the other prompt 4 of 4; .* mean\(all\)'):
        Selection("last,all").pairs(3, 4)
    with pytest.raises(ValueError, match="4 is out of range: there are 3"):
        Selection("4").pairs(5, 3)


@given(st.lists(st.integers(-12, 12), min_size=1, max_size=4), st.integers(1, 9))
def test_indices_out_of_range_are_refused(indices, length):
    selection = Selection.of(indices)
    if all(-length <= index < length for index in indices):
        assert set(selection.resolve(length)) == {range(length)[index] for index in indices}
    else:
        with pytest.raises(ValueError, match=rf"is out of range: there are {length} \(0 to {length - 1}"):
            selection.resolve(length)


@given(st.text(max_size=8) | st.text("0123456789:,-+ alme(n)", max_size=9))
def test_any_text_is_indices_or_a_clear_error(text):
    try:
        found = Selection(text).positions(10)
    except ValueError as error:
        assert 0 < len(str(error)) < 200
    else:
        assert len(set(found)) == len(found) > 0
        assert all(set(at if isinstance(at, range) else [at]) <= set(range(10)) for at in found)


@pytest.mark.parametrize("text", ["3,-1", "last,3", "0:4,-1"])
def test_one_position_has_one_partner(text):
    with pytest.raises(ValueError, match=r"token 3 is selected twice, to subtract token [35] and token [35] of the"):
        Selection(text).pairs(4, 6)
    assert list(Selection(text).pairs(4, 4))[-1] == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "0,",
        "a",
        "1:2:3:4",
        "1.5",
        "0x1",
        "--1",
        "1e3",
        "٣",
        "9" * 5000,
        "x" * 10**7,
        "mean",
        "mean()",
        "mean(2",
        "mean(1,2)",
        "mean(last)",
        "mean(mean(1:2))",
    ],
)
def test_nonsense_is_named(text):
    with pytest.raises(ValueError, match="is not an index") as caught:
        Selection(text)
    assert len(str(caught.value)) < 200


def test_the_mean_of_a_single_token_is_not_a_span():
    with pytest.raises(ValueError, match=r'"mean\(3\)" averages a single token: write a span'):
        Selection("mean(3)")
