"""The examples' JSON: what is read, and that every problem is named with its place."""

from __future__ import annotations

import json
import re
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers.interpretation.prompts.examples import (
    Example,
    ExamplesError,
    ExamplesFile,
    ExamplesWarning,
    read_examples,
)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "examples.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def problems_of(path):
    with pytest.raises(ExamplesError) as caught:
        read_examples(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


@pytest.mark.parametrize("raw", ["no", 0, None])
def test_raw_is_true_or_false(raw):
    with pytest.raises(ValueError, match="raw must be true or false"):
        Example("a_1", "Hi", raw=raw)


def test_reads_every_key_and_its_default(write):
    path = write(
        {
            "examples": [
                {"prompt": "The capital of Italy is", "category": "fact", "raw": True, "answer": "Rome"},
                {"prompt": "¿Qué? 漢字 🙂"},
                {"prompt": "x", "category": "fact", "answer": None, "minus": None},
                {"prompt": "He is sad", "minus": "He is happy"},
            ]
        }
    )
    assert read_examples(path) == [
        Example(name="fact_1", prompt="The capital of Italy is", category="fact", raw=True, answer="Rome"),
        Example(name="example_2", prompt="¿Qué? 漢字 🙂", category="example", raw=False, answer=None),
        Example(name="fact_3", prompt="x", category="fact", raw=False, answer=None),
        Example(name="example_4", prompt="He is sad", minus="He is happy"),
    ]


def test_a_byte_order_mark_is_no_problem(write):
    assert read_examples(write(b'\xef\xbb\xbf{"examples": [{"prompt": "x"}]}'))[0].prompt == "x"


def test_syntax_errors_have_line_and_column(write):
    assert problems_of(write(b'{"examples": [\n  {"prompt": "a",}\n]}'))[0].startswith("line 2, column ")
    assert "not UTF-8" in problems_of(write(b'{\n"examples": "\xff"}'))[0]
    assert problems_of(write(b'{\n"examples": "\xff"}'))[0].startswith("line 2: byte 15 ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], 'expected an object {"examples": [...]}, found a list'),
        ({}, 'no "examples"'),
        ({"exampels": []}, "no \"examples\" (did you mean 'exampels'?)"),
        ({"examples": {}}, '"examples" must be a list, found an object'),
        ({"examples": []}, '"examples" is empty'),
        ({"examples": ["x"]}, "example 1: expected an object, found text"),
        ({"examples": [{"category": "x"}]}, 'example 1: no "prompt"'),
        ({"examples": [{"promt": "x"}]}, "example 1: no \"prompt\" (did you mean 'promt'?)"),
        ({"examples": [{"prompt": ""}]}, 'example 1: "prompt" is empty'),
        ({"examples": [{"prompt": " \n"}]}, 'example 1: "prompt" is empty'),
        ({"examples": [{"prompt": None}]}, 'example 1: "prompt" must be text, found null'),
        ({"examples": [{"prompt": 3}]}, 'example 1: "prompt" must be text, found a number'),
        ({"examples": [{"prompt": "x", "raw": 1}]}, 'example 1: "raw" must be true or false, found a number'),
        ({"examples": [{"prompt": "x", "answer": ["a"]}]}, 'example 1: "answer" must be text, found a list'),
        ({"examples": [{"prompt": "x", "minus": ""}]}, 'example 1: "minus" is empty'),
        ({"examples": [{"prompt": "x", "minus": ["y"]}]}, 'example 1: "minus" must be text, found a list'),
        ({"examples": [{"prompt": "x", "category": ""}]}, 'example 1: "category" is empty'),
        (
            {"examples": [{"prompt": "ab\ud800"}]},
            'example 1: "prompt" has U+D800 (half of a surrogate pair) at character 3, which is not text',
        ),
        ({"examples": [{"prompt": "\0"}]}, 'example 1: "prompt" has U+0000 (NUL) at character 1, which is not text'),
    ],
)
def test_each_problem_is_named(write, content, message):
    assert problems_of(write(content)) == [message]


def test_all_problems_are_reported_together(write):
    found = problems_of(write({"examples": [{"prompt": ""}, {"prompt": "x"}, {"raw": "no"}, 7]}))
    assert found == [
        'example 1: "prompt" is empty',
        'example 3: no "prompt"',
        'example 3: "raw" must be true or false, found text',
        "example 4: expected an object, found a number",
    ]


def test_many_problems_are_counted(write):
    found = problems_of(write({"examples": [{}] * 1000}))
    assert len(found) == 51
    assert found[-1] == "and 950 more problems"


def test_a_key_given_twice_is_a_problem(write):
    found = problems_of(write(b'{"examples": [{"prompt": "a", "prompt": "b"}]}'))
    assert found == ['example 1: key "prompt" is given twice']


def test_unknown_keys_are_warned_about(write):
    with pytest.warns(ExamplesWarning) as caught:
        read_examples(write({"examples": [{"prompt": "x", "anwser": "y"}], "version": 1}))
    messages = [str(warning.message) for warning in caught]
    assert any("example 1: unknown keys are ignored: \"anwser\" (did you mean 'answer'?)" in text for text in messages)
    assert any('unknown key "version" is ignored' in text for text in messages)


def test_unreadable_files(tmp_path):
    assert problems_of(tmp_path / "none.json") == ["cannot read the examples: No such file or directory"]
    assert problems_of(tmp_path) == ["cannot read the examples: Is a directory"]
    assert problems_of("a\0b")[0].startswith("cannot read the examples: ")


def test_hostile_json(write):
    assert problems_of(write(b"[" * 100_000)) == ["not valid JSON: nested too deeply"]
    assert "not valid JSON" in problems_of(write(b'{"examples": ' + b"1" * 10_000 + b"}"))[0]
    long = "x" * 10_000_000
    assert read_examples(write({"examples": [{"prompt": long}]}))[0].prompt == long
    with pytest.warns(ExamplesWarning) as caught:
        read_examples(write({"examples": [{"prompt": "x", long: 1}]}))
    assert len(str(caught[0].message)) < 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = VALUES | st.fixed_dictionaries(
    {"prompt": st.text(st.characters(exclude_categories=()), max_size=9) | VALUES},
    optional={
        "category": st.text(max_size=3) | VALUES,
        "raw": st.booleans() | VALUES,
        "answer": VALUES,
        "minus": VALUES,
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES | st.fixed_dictionaries({"examples": st.lists(ENTRIES, max_size=4) | VALUES}))
@example({"examples": [{"prompt": "fine"}]})
def test_any_json_is_examples_or_a_clear_error(write, content):
    path = write(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExamplesWarning)
        try:
            found = read_examples(path)
        except ExamplesError as error:
            assert error.problems
            assert all(re.fullmatch(r"\S+examples\.json: \S[^\n]*", problem) for problem in error.problems)
            return
    assert [item.prompt for item in found] == [entry["prompt"] for entry in content["examples"]]
    for number, item in enumerate(found, start=1):
        assert item.name == f"{item.category}_{number}"
        f"{item}".encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_examples_or_a_clear_error(write, content):
    with pytest.raises(ExamplesError) as caught:  # a few random bytes are never a list with a prompt
        read_examples(write(content))
    assert all(problem.count("\n") == 0 for problem in caught.value.problems)


def test_numbers_within_a_category_from_the_shortest_prompt_on(tmp_path):
    prompts = [("a long one", "x"), ("short", "y"), ("tiny", "x"), ("also tiny?", "x"), ("shor2", "y")]
    path = tmp_path / "examples.json"
    content = {"examples": [{"prompt": prompt, "category": category} for prompt, category in prompts]}
    path.write_text(json.dumps(content))
    read = ExamplesFile.read(path)
    counted = read.numbered_by_category()
    # As a loop over the examples, sorted by length, that counts each category.
    assert [example.name for example in counted.examples] == ["x_2", "y_1", "x_1", "x_3", "y_2"]
    assert [example.prompt for example in counted.examples] == [prompt for prompt, _ in prompts]
    assert counted.digest != read.digest
