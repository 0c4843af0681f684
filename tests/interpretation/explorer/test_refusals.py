"""What cannot be done is refused with a sentence, whatever is sent; and nothing that is sent ends the server."""

from __future__ import annotations

import pytest
from explorer_client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.explorer.queries import LensQuery, ScoreQuery, TableQuery, VectorsQuery

GOOD = {"prompt": "abc", "raw": True, "layers": "1", "tokens": "0", "max_new_tokens": 2}
HOSTILE = "</script><img src=x onerror=alert(1)>\n\ndata: {}\n\nevent: done\u2028\u202e\0\x1b[2J"


@pytest.fixture(scope="module")
def client(tiny):
    """One server for all: that it goes on is part of each test."""
    with Explorer(*tiny) as explorer:
        yield Client(explorer.url)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": ""}, "has no tokens"),
        ({"prompt": None}, "prompt: Input should be a valid string"),
        ({"prompt": 3}, "prompt: Input should be a valid string"),
        ({"prompt": "x" * 600}, "has 600 tokens and 1 new ones; the model takes 512"),
        ({"prompt": "x" * 200_001}, "prompt: String should have at most 200000 characters"),
        ({"promt": "abc"}, "promt: Extra inputs are not permitted"),
        ({"raw": 1}, "raw: Input should be a valid boolean"),
        ({"layers": "5"}, "layers: 5 is out of range: there are 5"),
        ({"layers": "1,x"}, 'layers: "x" is not an index'),
        ({"layers": "::0"}, 'layers: "::0" has step 0'),
        ({"layers": []}, "layers"),
        ({"layers": 10**30}, "is not an index"),
        ({"layers": [1.5]}, "layers: Input should be a valid"),
        ({"layers": True}, "layers: Input should be a valid"),
        ({"layers": "0," * 5000}, "layers: String should have at most"),
        ({"tokens": "3"}, "tokens: 3 is out of range"),
        ({"tokens": "mean(0:0)"}, "averages none of 3"),
        ({"minus": "ab", "tokens": "all"}, "selects 3 of 3 tokens, of the other prompt 2 of 2"),
        ({"place": "nowhere"}, "nowhere"),
        ({"insert_layer": 4}, "insert layer 4 is out of range: 0 to 3"),
        ({"insert_layer": -1}, "count decoder layers from 0"),
        ({"insert_layer": []}, "insert_layer is []"),
        ({"insert_layer": "somewhere"}, "insert_layer: Input should be"),
        ({"insert_layer": list(range(1000))}, "insert layer"),
        ({"insert_layer": "same", "layers": "4"}, "hidden state 4 comes after the last decoder layer"),
        ({"replacing_mode": "swapped"}, "replacing_mode is 'swapped': use one of"),
        ({"overlay_strength": 1.5}, "overlay_strength is 1.5"),
        ({"overlay_strength": [1, 1, 1, 1, 1]}, "overlay_strength 5 numbers"),
        ({"overlay_strength": "1"}, "overlay_strength: Input should be a valid number"),
        ({"guidance": -0.1}, "guidance is -0.1: it must be finite and not less than 0"),
        ({"guidance": float("nan")}, "guidance: Input should be a finite number"),
        ({"guidance": float("inf")}, "guidance: Input should be a finite number"),
        ({"guidance": 10**400}, "guidance"),
        ({"plausibility": 2}, "plausibility is 2.0: it must be in [0, 1]"),
        ({"deep_gain": 0}, "deep_gain is 0.0: it must be finite and greater than 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: at least one token is needed"),
        ({"max_new_tokens": 257}, "max_new_tokens: Input should be less than or equal to 256"),
        ({"samples": -1}, "samples is -1: it must be from 1 to 10,000"),
        ({"samples": 10_001}, "samples is 10001"),
        ({"temperature": 0.5}, "temperature, top_p and seed are for sampling"),
        ({"samples": 1, "temperature": 0}, "temperature is 0.0: it must be finite and greater than 0"),
        ({"samples": 1, "top_p": 1.1}, "top_p is 1.1: it must be in (0, 1]"),
        ({"samples": 10_000, "tokens": "all", "layers": "all"}, "200,000 cells are asked for"),
        ({"interpretation_prompt": "discribe"}, "unknown interpretation prompt 'discribe'"),
        ({"interpretation_prompt": "/etc/passwd"}, "unknown interpretation prompt '/etc/passwd'"),
        ({"interpretation_prompt": {"text": "nothing"}}, "there is no placeholder"),
        ({"interpretation_prompt": {"text": "_", "placeholder": ""}}, "the placeholder is empty"),
        ({"interpretation_prompt": {"text": "{question} _"}}, "it has the field {question}; give a question"),
        ({"interpretation_prompt": "ask"}, "it has the field {question}; give a question"),
        ({"question": " "}, "the question is empty"),
        ({"interpretation_prompt": {"text": "x" * 600 + " _ "}}, "the model takes 512"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_told_in_a_sentence(client, change, told):
    for path in ("interpret", "table"):
        status, answer = client.post(path, {**GOOD, **change})
        assert status == 422 and told in answer["detail"], answer
        assert len(answer["detail"]) <= 300 and "\n" not in answer["detail"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("table", {**GOOD, "format": "exe"}, "format: Input should be 'csv', 'parquet', 'page' or 'python'"),
        ("compare", GOOD, "minus: Field required"),
        ("lens", {"prompt": "abc", "k": 0}, "k: Input should be greater than or equal to 1"),
        ("lens", {"prompt": "", "raw": True}, "the prompt has no tokens"),
        ("lens", {"prompt": "x" * 600}, "the prompt has"),
        ("lens", {"prompt": "abc", "tokens": "mean(0:2)"}, "is for tokens alone"),
        ("lens", {"prompt": "abc", "lens": "tuned"}, "there is no lens 'tuned'"),
        ("score", {**GOOD, "text": "is", "layers": "all"}, "layers: Input should be a valid integer"),
        ("score", {**GOOD, "text": ""}, "text: String should have at least 1 character"),
        ("score", {**GOOD, "text": "x" * 1900}, "the interpretation prompt with the text has"),
        ("score", {**GOOD, "tokens": 9, "layers": 1, "text": "x"}, "out of range"),
        ("tokenize", {}, "prompt: Field required"),
    ],
    ids=str,
)
def test_of_other_questions_too(client, path, body, told):
    if path == "score" and body.get("layers") == "1":
        body = {**body, "layers": 1, "tokens": 0}
    status, answer = client.post(path, body)
    assert status == 422 and told in answer["detail"], answer


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"prompt": NaN}',
        b"[" * 10**5,
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_request_at_all(client, content):
    for path in ("interpret", "table", "lens", "tokenize", "vectors", "score", "compare"):
        status, answer = client.post(path, content)
        assert 400 <= status < 500 and answer["detail"], (path, answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
)
QUERIES = {"table": TableQuery, "lens": LensQuery, "vectors": VectorsQuery, "score": ScoreQuery}
FIELDS = sorted({name for query in QUERIES.values() for name in query.model_fields})
CHANGES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["table", "lens", "vectors", "score", "tokenize"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
)
def test_nothing_is_an_error_of_the_server(client, path, change):
    allowed = {
        "table": GOOD,
        "lens": {"prompt": "abc"},
        "tokenize": {"prompt": "abc"},
        "vectors": {"vectors": [[0.5] * 32], "max_new_tokens": 2},
        "score": {**GOOD, "layers": 1, "tokens": 0, "text": "is"},
    }
    status, answer = client.post(path, {**allowed[path], **change})
    assert status == 200 or (400 <= status < 500 and answer["detail"]), answer
    assert client.get("health") == (200, {"status": "ok", "queued_cells": 0})


def test_hostile_text_is_only_text(client):
    status, answer = client.post("tokenize", {"prompt": HOSTILE, "raw": True})
    assert status == 200 and "".join(one["text"] for one in answer["tokens"]).startswith("</script>")
    body = {
        **GOOD,
        "prompt": HOSTILE,
        "minus": HOSTILE + "x",
        "tokens": "last",
        "interpretation_prompt": {"text": f"{HOSTILE} _ "},
    }
    cells = client.cells(body)  # whose events are told apart in spite of it
    assert len(cells) == 1
    _, content = client.post("table", {**body, "format": "page"})
    assert b"<img src=x" not in content
    _, content = client.post("table", {**body, "format": "python"})
    compiled = compile(content, "given.py", "exec")
    assert HOSTILE in [constant for constant in compiled.co_consts if isinstance(constant, str)]
