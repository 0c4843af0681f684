"""The page in a browser: what is seen on opening, under the pointer and from the keyboard."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect
from report_page import (
    assert_told,
    cell,
    grid,
    marked,
    record_of,
    words_shown,
)
from transformers.interpretation.report.__main__ import main


def test_all_prompts_and_answers_are_visible_on_opening(open_page, page_file):
    page = open_page(page_file)
    assert page.title() == "Interpretations of two facts"
    for number, example in enumerate(("The capital of Japan number 1 is", "The capital of Japan number 2 is")):
        expect(page.locator(".overview .prompt").nth(number)).to_have_text(example)
        expect(page.locator(".overview .prompt").nth(number)).to_be_in_viewport()
        expect(page.locator(f"#example-{number} dd.text").first).to_have_text(example)
        expect(page.locator(f"#example-{number} dd.output")).to_have_text(" Tokyo")


def test_the_grid_has_tokens_across_and_layer_0_at_the_bottom(open_page, page_file):
    page = open_page(page_file)
    layers = grid(page).locator("tbody th").all_text_contents()
    assert layers == ["4", "3", "2", "1", "0"]
    tops = [head.bounding_box()["y"] for head in grid(page).locator("tbody th").all()]
    assert tops == sorted(tops)
    heads = grid(page).locator("thead tr").nth(1).locator("th").all_text_contents()
    assert heads == ["layer", "0The", "1␣capital", "2␣of", "3␣Tokyo"]
    assert grid(page).locator("thead .sources").all_text_contents() == ["prompt tokensgenerated"]
    for layer, token in itertools.product(range(5), range(4)):
        if (layer, token) in ((0, 3), (1, 3)):
            continue
        text = record_of(layer, token).interpretation_text.strip().replace("\n", "⏎")
        assert cell(page, layer, token).text_content() == text[:64]


def test_generated_tokens_look_different(open_page, page_file):
    page = open_page(page_file)
    colours = [
        head.evaluate("head => getComputedStyle(head).backgroundColor")
        for head in grid(page).locator("thead tr").nth(1).locator("th").all()
    ]
    assert colours[1] == colours[2] == colours[3] != colours[4]


def test_cells_that_went_wrong_or_were_not_computed_say_so(open_page, page_file):
    page = open_page(page_file)
    expect(cell(page, 0, 3)).to_have_text("⚠ the embedding has NaN")
    expect(cell(page, 1, 3)).to_have_text("")
    expect(cell(page, 1, 3)).to_have_attribute("aria-label", "not computed")
    cell(page, 0, 3).hover()
    expect(page.locator("#words")).to_have_text("the embedding has NaN")


def test_hover_shows_the_whole_interpretation_with_each_word_shaded(open_page, page_file):
    page = open_page(page_file)
    cell(page, 3, 2).hover()
    record = record_of(3, 2)
    assert_told(page, record)
    # A more relevant word has a darker ground.
    shades = page.eval_on_selector_all(
        "#words span", "spans => spans.map(span => getComputedStyle(span).backgroundColor.match(/\\d+/g).map(Number))"
    )
    lightness = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in shades]
    weights = record.interpretation_weights
    assert lightness.index(min(lightness)) == weights.index(max(weights))
    assert lightness.index(max(lightness)) == weights.index(min(weights))
    page.locator("#words span").nth(1).hover()
    expect(page.locator("#place .word")).to_contain_text("probability")


def test_the_keyboard_walks_the_grid(open_page, page_file):
    page = open_page(page_file)
    page.locator("#example-0 input[type=radio]").first.focus()
    page.keyboard.press("Tab")  # the interpretation prompt's text
    page.keyboard.press("Tab")  # into the grid: one stop
    assert_told(page, record_of(4, 0))
    for key, layer, token in (
        ("ArrowRight", 4, 1),
        ("ArrowDown", 3, 1),
        ("End", 3, 3),
        ("ArrowDown", 2, 3),
        ("ArrowDown", 0, 3),  # over the cell of layer 1 that was not computed
        ("ArrowUp", 2, 3),
        ("Home", 2, 0),
        ("PageDown", 0, 0),
        ("ArrowLeft", 0, 0),
        ("Control+Home", 4, 0),
    ):
        page.keyboard.press(key)
        expect(cell(page, layer, token)).to_be_focused()
        if (layer, token) != (0, 3):
            assert_told(page, record_of(layer, token))
    assert grid(page).locator('[tabindex="0"]').count() == 1


def test_the_page_of_a_real_run_shows_what_the_model_thinks(open_page, embedded_folder, tmp_path):
    examples = {"examples": [{"prompt": "The capital of Japan is", "raw": True, "answer": "Tokyo"}]}
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    script = Path(__file__).resolve().parents[3] / "scripts" / "get_interpretations_from_examples.py"
    where = ["--model", str(embedded_folder), "--examples", "examples.json", "--output", "out.csv"]
    what = ["--layers", "0,24", "--tokens", "last", "--max-new-tokens", "4", "--dtype", "float32"]
    subprocess.run([sys.executable, str(script), *where, *what], cwd=tmp_path, check=True, capture_output=True)
    assert main([str(tmp_path / "out.csv"), "-o", str(tmp_path / "page.html")]) == 0
    page = open_page(tmp_path / "page.html")
    expect(page.locator("dd.output")).to_have_text(" Tokyo")
    page.locator(".find-answer").click()
    assert marked(page, 0) == {(24, 0)}
    cell(page, 24, 0).hover()
    first, title = words_shown(page)[0]
    assert first == " Tokyo" and "probability" in title
