"""What the page and the notebook view contain, hostile strings included; without a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_records import HOSTILE, data_of, failed, grid_records, hostile_records, shown
from transformers.interpretation.features.table import ShownContext
from transformers.interpretation.interpretations import Interpretations
from transformers.interpretation.report import (
    notebook_view,
    page,
    write_page,
)
from transformers.interpretation.results.calibration import Calibration

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


def test_every_cell_travels_with_its_numbers_in_thousandths():
    data = data_of(page(RECORDS))
    cells = {
        (example["name"], reading["label"], cell[0], cell[1]): cell[2:]
        for example in data["examples"]
        for reading in example["readings"]
        for cell in reading["cells"]
    }
    assert len(cells) == len(RECORDS)
    for record in RECORDS:
        mean, texts, relevancy, probability, trust = cells[
            record.name, record.repeat_prompt_name, record.layer_idx, record.token_idx
        ]
        weights = record.interpretation_weights
        assert abs(mean / 1000 - sum(weights) / len(weights)) <= 0.0005
        assert "".join(texts) == record.interpretation_text
        assert relevancy == [round(1000 * weight) for weight in weights]
        assert probability == [round(1000 * number) for number in record.interpretation_prob]
        assert trust == round(1000 * record.trust)


def test_layers_come_from_the_last_to_the_first_and_only_computed_ones_are_there():
    kept = [record for record in RECORDS if record.layer_idx in (0, 2, 3) and record.token_idx != 1]
    for example in data_of(page(kept))["examples"]:
        assert example["layers"] == [3, 2, 0]
        assert [column[0] for column in example["columns"]] == [0, 2]


def test_a_cell_that_went_wrong_says_so_and_unknown_token_texts_leave_the_whole_text():
    first, second = replace(RECORDS[0], interpretation_tokens=()), failed(RECORDS[1])
    cells = data_of(page([first, second]))["examples"][0]["readings"][0]["cells"]
    assert cells[0][3] == first.interpretation_text
    assert cells[1] == [second.layer_idx, second.token_idx, "the embedding has NaN"]


def test_readings_of_one_prompt_at_two_insert_layers_are_told_apart():
    both = [*RECORDS[:3], *(replace(record, insert_layer=5) for record in RECORDS[:3])]
    labels = [reading["label"] for reading in data_of(page(both))["examples"][0]["readings"]]
    assert len(set(labels)) == 2
    assert "layer 1" in labels[0] and "layer 5" in labels[1]


def test_places_means_and_differences_are_told():
    tokens = ("Ġis", "Ġso", "mean(0:2)")

    def record(token, name, source):
        return replace(
            RECORDS[0], token_idx=token, current_token=name, token_source=source, prompt_token_list=tokens,
        )  # fmt: skip

    plain = [record(0, "Ġis", "prompt"), record(1, "Ġso", "output"), record(2, "mean(0:2)", "mean")]
    elsewhere = [replace(record, token_source=record.token_source + ", mlp_output") for record in plain]
    (example,) = data_of(page([*plain, *elsewhere]))["examples"]
    assert example["columns"] == [[0, "␣is", "prompt"], [1, "␣so", "output"], [2, "mean(0:2)", "mean"]]
    assert [reading["label"] for reading in example["readings"]] == ["describe", "describe · mlp output"]
    assert [len(reading["cells"]) for reading in example["readings"]] == [3, 3]
    differences = [record(0, "Ġis − Ġwas[4]", "difference"), record(2, "mean(0:2) − mean(0:5)", "difference")]
    (example,) = data_of(page(differences))["examples"]
    assert example["columns"] == [[0, "␣is − ␣was[4]", "difference"], [2, "mean(0:2) − mean(0:5)", "difference"]]
    text = shown(elsewhere, 100)
    assert "describe · mlp output, inserted at layer 1" in text
    assert "2 mean(0:2)" in text


def test_vectors_without_a_layer_are_one_row():
    vectors = [
        replace(record, layer_idx=None, token_idx=index, token_source="vector", current_token=f"joy − grief {index}")
        for index, record in enumerate(RECORDS[:3])
    ]
    (example,) = data_of(page(vectors))["examples"]
    assert example["layers"] == [None]
    assert [column[1] for column in example["columns"]] == ["joy − grief 0", "joy − grief 1", "joy − grief 2"]


def test_the_page_of_nothing_is_a_page():
    assert data_of(page([]))["examples"] == []


def test_ten_thousand_cells_stay_under_a_kilobyte_each():
    large = grid_records(examples=4, layers=50, tokens=50, length=30)
    assert len(large) == 10_000
    assert len(page(large).encode()) < 1000 * len(large)


class Elements(HTMLParser):
    """Counts elements and collects attributes, as a browser would see them."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes.update(name for name, _ in attrs)


def elements(html):
    parser = Elements()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("view", [page, notebook_view])
def test_hostile_strings_add_no_element_and_no_handler(view):
    plain = [replace(record, name=f"n{number}") for number, record in enumerate(hostile_records(RECORDS))]
    for field in ("category", "prompt", "prompt_output", "current_token", "repeat_prompt", "answer"):
        plain = [replace(record, **{field: "harmless"}) for record in plain]
    plain = [replace(record, interpretation_text="harmless", repeat_prompt_name="harmless") for record in plain]
    hostile, harmless = elements(view(hostile_records(RECORDS))), elements(view(plain))
    assert hostile.names == harmless.names
    assert hostile.attributes == harmless.attributes
    assert not any(name.startswith("on") for name in hostile.attributes)


def test_hostile_strings_come_back_out_of_the_data_unchanged():
    html = page(hostile_records(RECORDS))
    texts = [example["readings"][0]["cells"][0][3][0] for example in data_of(html)["examples"]]
    assert texts == list(HOSTILE)
    begin = html.index('id="data">') + len('id="data">')
    raw = html[begin : html.index("</script", begin)]
    assert not set("<>&\u2028\u2029") & set(raw)
    assert raw.isascii()


def test_a_page_with_lone_surrogates_can_be_written(tmp_path):
    path = tmp_path / "page.html"
    write_page(hostile_records(RECORDS), path, title="\ud800 title")
    assert "\ufffd title" in path.read_text(encoding="utf-8")


def test_the_page_offers_the_shares_of_the_calibration():
    calibration = Calibration((0.0, 0.2, 0.5), (0.02, 0.1, 0.625), "made <up>")
    html = page(RECORDS, calibration=calibration)
    assert re.findall(r'<option value="(\d+)"', html) == ["0", "100", "625"]
    assert "made &lt;up&gt;" in html
    trusts = {
        cell[6] for example in data_of(html)["examples"] for reading in example["readings"] for cell in reading["cells"]
    }
    assert trusts == {20, 100, 625}
    assert 'id="trust"' not in page(RECORDS, calibration=Calibration((0.0,), (0.1,), "one step: nothing to choose"))


def test_the_notebook_view_is_a_frame_and_a_table():
    html = notebook_view(RECORDS)
    assert Interpretations(RECORDS)._repr_html_() == html
    names = elements(html).names
    assert names.count("iframe") == 1 and "script" not in names
    assert str(len(RECORDS)) in html


def test_a_notebook_holds_whole_examples_of_a_large_result_and_says_so():
    large = grid_records(examples=5, layers=30, tokens=50, length=1)
    html = notebook_view(large)
    assert "7,500 interpretations of 5 examples, of which the first 2 are shown" in html
    assert html.count("fact_2") and not html.count("fact_3")


def vectors(*indices):
    return [
        replace(
            RECORDS[0],
            name="vectors",
            layer_idx=None,
            token_idx=index,
            current_token=f"v{index}",
            token_source="vector",
        )
        for index in indices
    ]


def test_contexts_travel_with_the_vectors_that_have_some():
    found = {
        1: [ShownContext(3.14159, ("a", " b", " c"), 1)] * 7,
        2: [ShownContext(1.0, ("x",), 0)],
        9: [ShownContext(1.0, ("not shown",), 0)],
    }
    data = data_of(page(vectors(0, 1, 2), contexts=found))
    assert data["contexts"] == {"1": [["a", " b", " c", "3.14"]] * 5, "2": [["", "x", "", "1"]]}
    assert "contexts" not in data_of(page(vectors(0, 1)))
    with pytest.raises(ValueError, match="none of the vectors"):
        page(vectors(0, 3), contexts=found)
    with pytest.raises(ValueError, match="none of the vectors"):
        page(RECORDS, contexts=found)  # tokens of prompts are no vectors, whatever their index


def test_hostile_contexts_cannot_end_the_element():
    found = {0: [ShownContext(1.0, (text, text, text), 1) for text in HOSTILE[:5]]}
    html = page(vectors(0), contexts=found)
    assert data_of(html)["contexts"]["0"] == [[text, text, text, "1"] for text in HOSTILE[:5]]
