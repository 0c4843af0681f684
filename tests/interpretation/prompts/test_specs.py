"""Interpretation prompts as a user gives them: names, files and specifications, right and wrong."""

from __future__ import annotations

import json

import pytest
from transformers.interpretation.prompts.interpretation_prompt import (
    BUILT_IN,
    InterpretationPrompt,
    InterpretationPromptSpec,
)
from transformers.interpretation.prompts.spec_files import fields_of, find_spec, spec_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a sequence or a text"),
        ({"sequence": ("a", 0), "text": "a _"}, "either a sequence or a text"),
        ({"sequence": ("a", "b")}, "there is no placeholder; an int stands for one"),
        ({"text": "a b"}, "there is no placeholder; write '_' where"),
        ({"text": "a _", "placeholder": ""}, "the placeholder is empty"),
        ({"text": "a _", "reply": "Sure"}, "a reply belongs to a chat prompt"),
        ({"sequence": ("a", True)}, r"sequence\[1\] is True"),
        ({"sequence": ("a", 0, 0.5)}, r"sequence\[2\] is 0.5"),
        ({"sequence": ("a", 0, None)}, r"sequence\[2\] is None"),
        ({"text": "a _ \uffff"}, "no characters"),
        ({"sequence": ("a \ud800", 0)}, "half of a surrogate pair"),
    ],
)
def test_malformed_specs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InterpretationPromptSpec("mine", **arguments)


@pytest.mark.parametrize("locations", [(), (1, 1), (2, 1), (-1,), (3,)])
def test_a_prompt_checks_its_locations(locations):
    with pytest.raises(ValueError, match="interpretation prompt 'mine'"):
        InterpretationPrompt("mine", (5, 6, 7), locations, "a b c")


def test_find_spec_knows_names_and_files(tmp_path):
    assert find_spec("describe") is BUILT_IN["describe"]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"sequence": ["It is", 0, "."], "chat": True, "reply": "Sure"}), encoding="utf-8")
    expected = InterpretationPromptSpec("mine", sequence=("It is", 0, "."), chat=True, reply="Sure")
    assert find_spec(file) == find_spec(str(file)) == expected
    file.write_text(json.dumps({"name": "x", "text": "It is #", "placeholder": "#"}), encoding="utf-8-sig")
    assert find_spec(file) == InterpretationPromptSpec("x", text="It is #", placeholder="#")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a _",\n  "chat" true}', r"line 2, column 10"),
        ("[1]", "is an object with the keys"),
        ('{"txt": "a _", "chat": 1}', r"unknown key 'txt' \(did you mean 'text'\?\); chat is 1, it must be true or f"),
        ('{"text": 3, "sequence": "a"}', r"text is 3, it must be a text; sequence is 'a', it must be a list"),
        ('{"sequence": ["a", 0, [1]]}', r"sequence\[2\] is \[1\]"),
        ('{"sequence": []}', "either a sequence or a text"),
        ("", r"line 1, column 1"),
        ("[" * 100_000, "cannot read the interpretation prompt"),
        ("1" * 5000, "cannot read the interpretation prompt"),
        (b"\xff\xfe\xfa", "cannot read the interpretation prompt"),
    ],
)
def test_bad_files_are_refused_with_everything_that_is_wrong(tmp_path, content, message):
    file = tmp_path / "mine.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        find_spec(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_unknown_names_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown interpretation prompt 'sumarize' \(did you mean 'summarize'\?\)"):
        find_spec("sumarize")
    with pytest.raises(ValueError, match="cannot read the interpretation prompt"):
        find_spec(tmp_path / "missing.json")
    for impossible in ("x" * 10_000_000, "a\0b", "\ud800", ""):
        with pytest.raises(ValueError, match="unknown interpretation prompt") as caught:
            find_spec(impossible)
        assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="cannot read the interpretation prompt") as caught:
        find_spec("x" * 10_000_000 + ".json")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_spec_and_its_fields_are_the_same(name):
    fields = json.loads(json.dumps(fields_of(BUILT_IN[name])))
    assert spec_of(fields, "here", "other") == BUILT_IN[name]
    del fields["name"]
    assert spec_of(fields, "here", "other").name == "other"
    with pytest.raises(ValueError, match="here: unknown key 'sequenc' "):
        spec_of({"sequenc": [0]}, "here", "other")
