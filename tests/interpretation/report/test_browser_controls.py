"""The page's controls in a browser: search, filter, trust, interpretation prompt, colours, table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

from playwright.sync_api import expect
from report_page import (
    RECORDS,
    assert_told,
    cell,
    grid,
    marked,
    record_of,
    records,
)
from report_records import grid_records
from transformers.interpretation.interpretations import Interpretations
from transformers.interpretation.report import write_page
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION


def test_search_lights_exactly_the_cells_that_contain_the_text(open_page, page_file):
    page = open_page(page_file)
    page.fill("#search", "ToKyO")
    containing = [record for record in records() if "tokyo" in record.interpretation_text.lower()]
    assert 0 < len(containing) < len(records())
    for number, name in enumerate(("fact_1", "fact_2")):
        wanted = {
            (record.layer_idx, record.token_idx)
            for record in containing
            if record.name == name and record.repeat_prompt_name == "describe"
        }
        assert marked(page, number) == wanted
        both = sum(record.name == name for record in containing)
        expect(page.locator(f'.overview .badge[data-hits="{number}"]')).to_have_text(str(both))
    lowest = min(record.layer_idx for record in containing)
    expect(page.locator("#count")).to_have_text(f"{len(containing)} matches, lowest layer {lowest}")
    page.fill("#search", "no such text")
    expect(page.locator("#count")).to_have_text("0 matches")
    assert marked(page, 0) == set()
    page.fill("#search", "")
    assert marked(page, 0, "dim") == set()
    expect(cell(page, 4, 0)).to_have_text(record_of(4, 0).interpretation_text.strip().replace("\n", "⏎"))


def test_enter_goes_from_match_to_match(open_page, page_file):
    page = open_page(page_file, height=420)
    page.fill("#search", "japan")
    containing = [record for record in records() if "japan" in record.interpretation_text.lower()]
    for key, place in (("Enter", 0), ("Enter", 1), ("Shift+Enter", 0), ("Shift+Enter", -1), ("Enter", 0)):
        page.keyboard.press(key)
        assert_told(page, containing[place])
    expect(page.locator('#example-0 td.hit[tabindex="0"]')).to_be_in_viewport()


def test_a_long_text_shows_the_part_that_was_found(open_page, tmp_path):
    long = replace(RECORDS[0], interpretation_text="a" * 300 + " needle", interpretation_tokens=())
    write_page([long], tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    expect(cell(page, 0, 0)).to_have_text("a" * 64)
    page.fill("#search", "needle")
    expect(cell(page, 0, 0)).to_have_text("…a needle")


def test_the_answer_button_searches_the_answer(open_page, page_file):
    page = open_page(page_file)
    page.locator("#example-1 .find-answer").click()
    expect(page.locator("#search")).to_have_value("Tokyo")
    expect(page.locator("#count")).to_contain_text("matches")


def test_the_filter_dims_what_is_less_relevant(open_page, page_file):
    page = open_page(page_file)
    page.locator("#least").fill("300")
    below = {
        (record.layer_idx, record.token_idx)
        for record in records()
        if record.name == "fact_1"
        and record.repeat_prompt_name == "describe"
        and (record.status != "ok" or sum(record.interpretation_weights) / len(record.interpretation_weights) < 0.2995)
    }
    assert marked(page, 0, "dim") == below
    expect(page.locator("#least-value")).to_have_text("0.30")
    expect(page.locator("#count")).to_contain_text(f"of {len(records())} cells")
    page.fill("#search", "japan")  # what the filter dims is no match either
    containing = {
        (record.layer_idx, record.token_idx)
        for record in records()
        if "japan" in record.interpretation_text.lower() and record.name == "fact_1"
        if record.repeat_prompt_name == "describe"
    }
    assert containing & below and containing - below
    assert marked(page, 0) == containing - below


def test_what_is_not_trusted_can_be_hidden(open_page, page_file):
    page = open_page(page_file)
    assert marked(page, 0, "hidden") == set()
    least = BUILT_IN_CALIBRATION.shares[-2]
    page.get_by_label("hide below trust").select_option(f"{100 * least:.1f} %")

    def places(wanted):
        return {
            (record.layer_idx, record.token_idx)
            for record in records()
            if record.name == "fact_1" and record.repeat_prompt_name == "describe" and wanted(record)
        }

    below = places(lambda record: record.status == "ok" and record.trust < least)
    went_wrong = places(lambda record: record.status != "ok")
    assert below and marked(page, 0, "hidden") == below
    assert marked(page, 0, "dim") == below | went_wrong
    layer, token = max(below)
    expect(cell(page, layer, token)).to_have_text("·")
    expect(cell(page, layer, token)).to_have_attribute("aria-label", "hidden")
    expect(cell(page, 0, 3)).to_have_text("⚠ the embedding has NaN")
    trusted = sum(record.status == "ok" and record.trust >= least for record in records())
    expect(page.locator("#count")).to_have_text(f"{trusted} of {len(records())} cells")
    # The keyboard still goes there, and the dock tells what the cell would say.
    cell(page, layer, token).click()
    assert_told(page, record_of(layer, token))
    expect(page.locator("#place")).to_contain_text(f"trust {100 * record_of(layer, token).trust:.1f}\u00a0%")
    # What is hidden is no match, another filter counts as well, and the table leaves out the same.
    page.fill("#search", "japan")
    containing = places(lambda record: "japan" in record.interpretation_text.lower())
    assert containing & below and marked(page, 0) == containing - below
    page.fill("#search", "")
    page.locator("#least").fill("400")
    irrelevant = places(
        lambda record: (
            record.status == "ok" and sum(record.interpretation_weights) / len(record.interpretation_weights) < 0.3995
        )
    )
    assert irrelevant - below and marked(page, 0, "dim") == below | irrelevant | went_wrong
    page.locator("#least").fill("0")
    page.click("#table")
    expect(page.locator("table.plain tbody tr").filter(visible=True)).to_have_count(trusted)
    page.click("#table")
    page.get_by_label("hide below trust").select_option("none")
    assert marked(page, 0, "hidden") == marked(page, 0, "dim") == set()
    expect(cell(page, layer, token)).to_have_text(
        record_of(layer, token).interpretation_text.strip().replace("\n", "⏎")
    )
    assert cell(page, layer, token).get_attribute("aria-label") is None


def test_the_interpretation_prompt_can_be_switched(open_page, page_file):
    page = open_page(page_file)
    page.locator("#example-0 .readings label").filter(has_text="object").click()
    expect(cell(page, 2, 1)).to_have_text(
        record_of(2, 1, reading="object").interpretation_text.strip().replace("\n", "⏎")
    )
    cell(page, 2, 1).hover()
    assert_told(page, record_of(2, 1, reading="object"))
    expect(cell(page, 2, 1, number=1)).to_have_text(
        record_of(2, 1, name="fact_2").interpretation_text.strip().replace("\n", "⏎")
    )


def test_light_and_dark(open_page, page_file):
    def ground(page):
        red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        return (red + green + blue) / 3

    light, dark = open_page(page_file, color_scheme="light"), open_page(page_file, color_scheme="dark")
    assert ground(light) > 240 and ground(dark) < 40
    light.click("#theme")
    dark.click("#theme")
    assert ground(light) < 40 and ground(dark) > 240


def test_the_table_is_the_csv(open_page, page_file, tmp_path):
    Interpretations(records()).to_csv(tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    page = open_page(page_file)
    page.click("#table")
    expect(page.locator("table.plain")).to_have_count(2)
    shown = page.eval_on_selector_all(
        "table.plain tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert len(shown) == len(rows)
    for cells, row in zip(shown, rows):
        weights, probabilities = json.loads(row["interpretation_weights"]), json.loads(row["interpretation_prob"])
        assert cells[0] == row["layer_idx"] and cells[1] == row["token_idx"]
        assert cells[2].replace("␣", "Ġ") == row["current token"]
        assert cells[3:6] == [row["token_source"], row["repeat_prompt_name"], row["interpretation_text"]]
        assert cells[9] == row["status"]
        if row["status"] == "ok":
            assert abs(float(cells[6]) - sum(weights) / len(weights)) < 0.0011
            assert abs(float(cells[7]) - sum(probabilities) / len(probabilities)) < 0.0011
            assert cells[8] == f"{100 * BUILT_IN_CALIBRATION.trust(weights):.1f}\u00a0%"
    page.fill("#search", "japan")
    found = sum("japan" in row["interpretation_text"].lower() for row in rows)
    assert page.locator("table.plain tbody tr").filter(visible=True).count() == found
    page.click("#table")
    expect(grid(page)).to_be_visible()


def test_a_cell_with_samples_says_how_many_agree(open_page, tmp_path):
    texts = (" a town", " a city", " a city")
    sampled = [
        replace(record, sample=n, interpretation_text=text, interpretation_tokens=(text, *[""] * 5))
        for record in RECORDS[:2]
        for n, text in enumerate(texts)
    ]
    write_page(sampled, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    cell(page, 0, 0).hover()
    expect(page.locator("#words")).to_contain_text("a city")
    expect(page.locator("#place")).to_contain_text("agreement 66.7\u00a0% of 3 samples")
    page.click("#table")
    expect(page.locator("table.plain th").last).to_have_text("agreement")
    expect(page.locator("table.plain tbody tr").first.locator("td").last).to_have_text("66.7\u00a0% of 3 samples")


def test_many_vectors_open_as_a_list_and_few_as_a_grid(open_page, tmp_path):
    cells = grid_records(examples=1, layers=1, tokens=30)
    vectors = [
        replace(cell, layer_idx=None, token_source="vector", token_idx=index, current_token=f"feature {index} × 12.5")
        for index, cell in enumerate(cells)
    ]
    for number in (30, 5):
        write_page(vectors[:number], tmp_path / f"{number}.html")
    page = open_page(tmp_path / "30.html")
    expect(page.locator("table.plain tbody tr")).to_have_count(30)
    expect(page.locator("table.plain tbody tr").nth(17)).to_contain_text("feature 17 × 12.5")
    expect(page.locator("#table")).to_have_attribute("aria-pressed", "true")
    page.click("#table")
    expect(grid(page)).to_be_visible()
    few = open_page(tmp_path / "5.html")
    expect(grid(few)).to_be_visible()
    expect(few.locator("#table")).to_have_attribute("aria-pressed", "false")
