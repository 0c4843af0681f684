"""Records as tables: the CSV's exact form, round trips, and files that are not ours."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.interpretation.interpretations import Interpretations, read_csv, read_parquet
from transformers.interpretation.models.token_text import token_pieces
from transformers.interpretation.results.csv_table import ResultsError
from transformers.interpretation.results.record import COLUMNS, Record

RECORD = Record(
    name="fact_1",
    category="fact",
    prompt="The capital of Italy is",
    prompt_output=" Rome",
    prompt_token_list=("The", "Ġcapital", "Ġof", "ĠItaly", "Ġis", "ĠRome"),
    layer_idx=24,
    token_idx=4,
    current_token="Ġis",
    repeat_prompt="Syria: a country\n x",
    repeat_prompt_name="describe",
    interpretation=(17, 4),
    interpretation_text=" Rome: a city",
    interpretation_weights=(0.123456789, 0.0),
    interpretation_prob=(1.0, 2e-9),
    token_source="prompt",
    insert_layer=1,
    status="ok",
    answer="Rome",
)
FAILED = replace(
    RECORD,
    interpretation=(),
    interpretation_text="",
    interpretation_weights=(),
    interpretation_prob=(),
    status="the embedding has NaN",
    answer=None,
)


def rows_of(path):
    """The file through the standard library alone."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_those_promised(tmp_path):
    path = tmp_path / "out.csv"
    Interpretations([RECORD]).to_csv(path)
    assert path.read_text().splitlines()[0] == (
        "name,category,prompt,prompt_output,prompt_token_list,layer_idx,token_idx,current token,repeat_prompt,"
        "repeat_prompt_name,interpretation,interpretation_text,interpretation_weights,interpretation_prob,"
        "token_source,insert_layer,status,answer,sample,question,insert_place"
    )


def test_cells_are_what_the_standard_library_reads(tmp_path):
    path = tmp_path / "out.csv"
    Interpretations([RECORD, FAILED]).to_csv(path)
    good, failed = rows_of(path)
    assert good["current token"] == "Ġis"
    assert json.loads(good["prompt_token_list"]) == list(RECORD.prompt_token_list)
    assert json.loads(good["interpretation"]) == [17, 4]
    assert json.loads(good["interpretation_weights"]) == [0.123457, 0.0]
    assert json.loads(good["interpretation_prob"]) == [1.0, 0.0]
    assert (good["layer_idx"], good["token_idx"], good["insert_layer"]) == ("24", "4", "1")
    assert (good["status"], good["answer"]) == ("ok", "Rome")
    for column in ("interpretation", "interpretation_weights", "interpretation_prob"):
        assert json.loads(failed[column]) is None
    assert (failed["status"], failed["answer"], failed["interpretation_text"]) == ("the embedding has NaN", "", "")


def test_pandas_reads_it(tmp_path):
    import pandas

    path = tmp_path / "out.csv"
    Interpretations([RECORD]).to_csv(path)
    frame = pandas.read_csv(path)
    assert tuple(frame.columns) == COLUMNS
    assert frame.loc[0, "interpretation_text"] == " Rome: a city"


def test_dataframe_has_the_columns_and_python_lists():
    frame = Interpretations([RECORD, FAILED]).dataframe()
    assert tuple(frame.columns) == COLUMNS
    assert frame.loc[0, "interpretation"] == [17, 4]
    assert frame.loc[0, "interpretation_weights"] == [0.123457, 0.0]
    assert frame.loc[1, "interpretation"] is None


def test_a_number_that_is_not_finite_is_null(tmp_path):
    path = tmp_path / "out.csv"
    Interpretations([replace(RECORD, interpretation_weights=(math.nan, math.inf))]).to_csv(path)
    assert json.loads(rows_of(path)[0]["interpretation_weights"]) == [None, None]
    assert read_csv(path)[0].interpretation_weights == (None, None)


@pytest.mark.parametrize("start", list("=+-@\t\r"))
def test_safe_marks_what_a_spreadsheet_would_run(tmp_path, start):
    path = tmp_path / "out.csv"
    text = start + 'HYPERLINK("x")'
    record = replace(RECORD, prompt=text, current_token=text, interpretation_text=text, answer=text, category=text)
    Interpretations([record]).to_csv(path, safe=True)
    row = rows_of(path)[0]
    for column in ("prompt", "current token", "interpretation_text", "answer", "category"):
        assert row[column] == "'" + text
    Interpretations([record]).to_csv(path)
    assert rows_of(path)[0]["prompt"] == text


def test_sequence():
    results = Interpretations([RECORD, FAILED])
    assert len(results) == 2
    assert results[-1] == FAILED
    assert results[:1] == Interpretations([RECORD])
    assert hash(results[:1]) == hash(Interpretations([RECORD]))
    assert "2 interpretations of 1 example" in repr(results)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
NUMBERS = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(0, 1), st.none() | st.floats(0, 1)), min_size=1, max_size=4
)
RECORDS = st.builds(
    lambda texts, tokens, layer, token, triples, failed: Record(
        **dict(zip(("name", "category", "prompt", "prompt_output", "current_token"), texts)),
        prompt_token_list=tuple(tokens),
        layer_idx=layer,
        token_idx=token,
        repeat_prompt=texts[5],
        repeat_prompt_name=texts[6],
        interpretation=() if failed else tuple(number for number, _, _ in triples),
        interpretation_text=texts[7],
        interpretation_weights=() if failed else tuple(weight for _, _, weight in triples),
        interpretation_prob=() if failed else tuple(probability for _, probability, _ in triples),
        token_source="prompt",
        insert_layer=[token, (token, token + 1), "same"][token % 3],
        status=failed or "ok",
        answer=texts[8] or None,
    ),
    st.lists(TEXT, min_size=9, max_size=9),
    st.lists(TEXT, max_size=3),
    st.none() | st.integers(0, 99),
    st.integers(0, 10**6),
    NUMBERS,
    st.none() | st.just("not finite"),
)


def rounded(record):
    weights = tuple(None if number is None else round(number, 6) for number in record.interpretation_weights)
    probabilities = tuple(round(number, 6) for number in record.interpretation_prob)
    return replace(record, interpretation_weights=weights, interpretation_prob=probabilities)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RECORDS, max_size=3))
def test_what_is_written_is_what_is_read(tmp_path, records):
    path = tmp_path / "out.csv"
    Interpretations(records).to_csv(path)
    assert list(read_csv(path)) == [rounded(record) for record in records]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RECORDS, max_size=3))
def test_parquet_gives_back_exactly_what_was_written(tmp_path, records):
    path = tmp_path / "out.parquet"
    Interpretations(records).to_parquet(path)
    assert list(read_parquet(path)) == records


def test_the_token_list_of_a_long_prompt_is_read(tmp_path):
    path = tmp_path / "out.csv"
    record = rounded(replace(RECORD, prompt_token_list=("Ġtoken",) * 100_000))
    Interpretations([record]).to_csv(path)
    limit = csv.field_size_limit()
    assert list(read_csv(path)) == [record]
    assert csv.field_size_limit() == limit


def problems_of(path):
    with pytest.raises(ResultsError) as caught:
        read_csv(path)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def spoiled(tmp_path, **cells):
    """A file whose second record has the given cells."""
    path = tmp_path / "out.csv"
    Interpretations([replace(RECORD, prompt="two\nlines"), RECORD]).to_csv(path)
    rows = rows_of(path)
    rows[1].update(cells)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"layer_idx": "one"}, "layer_idx must be a whole number, found 'one'"),
        ({"token_idx": ""}, "token_idx must be a whole number, found ''"),
        ({"interpretation": "[1, 2"}, "interpretation is not JSON: '[1, 2'"),
        ({"interpretation": "[true, 1]"}, "interpretation must be a list of token ids, found '[true, 1]'"),
        (
            {"interpretation_prob": "[NaN, 1]"},
            "interpretation_prob must be a list of numbers, found '[NaN, 1]'",
        ),
        ({"prompt_token_list": "null"}, "prompt_token_list must be a list of strings, found 'null'"),
        (
            {"interpretation": "[1]"},
            "interpretation, interpretation_weights and interpretation_prob differ in length",
        ),
        ({"interpretation": "[" * 100_000}, f"interpretation is not JSON: '{'[' * 57}...'"),
    ],
)
def test_bad_cells_are_named_with_their_line(tmp_path, cells, message):
    assert problems_of(spoiled(tmp_path, **cells)) == [f"line 5: {message}"]


def test_files_that_are_not_ours(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    assert problems_of(path)[0].startswith("no column name, category, prompt,")
    path.write_bytes(b"")
    assert problems_of(path)[0].endswith("not a file of interpretations")
    path.write_bytes(b"\xff\xfe\x00")
    assert problems_of(path)[0].startswith("not UTF-8")
    assert problems_of(tmp_path / "none.csv") == ["cannot read: No such file or directory"]
    assert problems_of("a\0b")[0].startswith("cannot read: ")
    path.write_text(",".join(COLUMNS) + ",name\n")
    assert problems_of(path) == ["column name occurs twice"]


def test_a_torn_file_is_named(tmp_path):
    path = tmp_path / "out.csv"
    Interpretations([RECORD] * 2).to_csv(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert problems_of(path)[0].startswith("line ")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 40))
def test_any_damage_is_a_valid_file_or_a_clear_error(tmp_path, noise, position, cut):
    path = tmp_path / "out.csv"
    Interpretations([RECORD, FAILED]).to_csv(path)
    content = path.read_bytes()
    path.write_bytes(content[:position] + noise + content[position + cut :])
    try:
        found = read_csv(path)
    except ResultsError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)
    else:
        assert all(isinstance(record, Record) for record in found)


class Bytes:
    """A tokenizer whose ids are bytes; 256 is a special token."""

    def __len__(self):
        return 257

    def convert_ids_to_tokens(self, number):
        return str(number)

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        return bytes(number for number in ids if number < 256).decode("utf-8", "replace")


@given(st.text(max_size=8), st.integers(0, 3))
def test_pieces_join_to_the_text(text, torn):
    ids = [*text.encode("utf-8", "replace"), 256]
    ids = ids[: len(ids) - torn]
    pieces = token_pieces(Bytes(), ids)
    assert len(pieces) == len(ids)
    expected = bytes(number for number in ids if number < 256).decode("utf-8", "replace")
    assert "".join(pieces) == expected.replace("\0", "\ufffd")


def test_pieces_are_what_each_token_adds():
    assert token_pieces(Bytes(), [*"aé".encode(), 256, 98]) == ("a", "", "é", "", "b")
    texts = Interpretations([replace(RECORD, interpretation=(65, 66))]).with_token_texts(Bytes())
    assert texts[0].interpretation_tokens == ("A", "B")
