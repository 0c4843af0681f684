"""The page in a real browser: Debian's Chromium, found on the PATH, driven by Playwright.

How long 10,000 cells take to open: `python tests/interpretation/test_report_browser.py` prints it.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from report_records import HOSTILE, grid_records
from transformers.interpretation.report import notebook_view, write_page
from transformers.interpretation.report.__main__ import main
from transformers.interpretation.results import Interpretations
from transformers.interpretation.trust import BUILT_IN

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = "the browser tests need Chromium on the PATH: apt-get install chromium"
RECORDS = grid_records(examples=2, layers=5, tokens=4, prompts=("describe", "object"))
FAILED, ABSENT = 3, 7
"""Indices of a record that went wrong and of one that was not computed."""


def records():
    bad = replace(
        RECORDS[FAILED],
        interpretation=(),
        interpretation_text="",
        interpretation_tokens=(),
        interpretation_weights=(),
        interpretation_prob=(),
        status="the embedding has NaN",
    )
    return [bad if n == FAILED else record for n, record in enumerate(RECORDS) if n != ABSENT]


@contextmanager
def chromium():
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI"):
        pytest.fail(MISSING)
    if path is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(records(), path, title="Interpretations of two facts")
    return path


@pytest.fixture
def open_page(browser):
    """Opens a file; at the end of the test the page must have had no error and asked the network for nothing."""
    pages, problems = [], []

    def open_one(path, *, width=1280, height=800, **settings):
        page = browser.new_page(viewport={"width": width, "height": height}, **settings)
        page.set_default_timeout(10_000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert problems == []


def grid(page, number=0):
    return page.locator(f"#example-{number} table.grid")


def cell(page, layer, token, number=0):
    row = grid(page, number).locator("tbody tr").filter(has=page.locator(f'th:text-is("{layer}")'))
    return row.locator("td").nth(token)


def record_of(layer, token, *, name="fact_1", reading="describe"):
    (found,) = (
        record
        for record in records()
        if (record.name, record.repeat_prompt_name, record.layer_idx, record.token_idx) == (name, reading, layer, token)
    )
    return found


def marked(page, number, kind="hit"):
    """(layer, token) of the cells of an example's grid that carry a mark."""
    return {
        (int(layer), int(column) - 2)
        for layer, column in page.eval_on_selector_all(
            f"#example-{number} td.{kind}",
            "tds => tds.map(td => [td.parentNode.firstChild.textContent, td.getAttribute('aria-colindex')])",
        )
    }


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


def words_shown(page):
    return page.eval_on_selector_all("#words span", "spans => spans.map(span => [span.textContent, span.title])")


def assert_told(page, record):
    wanted = [
        (text.replace("\n", "⏎"), f"relevancy {weight:.3f} · probability {probability:.3f}")
        for text, weight, probability in zip(
            record.interpretation_tokens, record.interpretation_weights, record.interpretation_prob
        )
    ]
    assert [tuple(shown) for shown in words_shown(page)] == wanted
    expect(page.locator("#place")).to_contain_text(f"layer {record.layer_idx}")
    expect(page.locator("#place")).to_contain_text(f"token {record.token_idx}")
    expect(page.locator("#place")).to_contain_text(record.repeat_prompt_name)


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
    least = BUILT_IN.shares[-2]
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
        lambda record: record.status == "ok"
        and sum(record.interpretation_weights) / len(record.interpretation_weights) < 0.3995
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
            assert cells[8] == f"{100 * BUILT_IN.trust(weights):.1f}\u00a0%"
    page.fill("#search", "japan")
    found = sum("japan" in row["interpretation_text"].lower() for row in rows)
    assert page.locator("table.plain tbody tr").filter(visible=True).count() == found
    page.click("#table")
    expect(grid(page)).to_be_visible()


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out_of_the_window(open_page, tmp_path, width):
    long = [replace(record, prompt="x" * 10_000, name="n" * 300, category="c" * 300) for record in records()]
    for name, content in (("plain", records()), ("long", long)):
        write_page(content, tmp_path / f"{name}.html", title="t" * 300)
        page = open_page(tmp_path / f"{name}.html", width=width)
        expect(page.locator("table.grid").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#least").fill("10")  # the number of cells stands beside the search then
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_headers_stay_in_view(open_page, tmp_path):
    write_page(grid_records(examples=1, layers=60, tokens=40), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    scroller = page.locator(".scroller")
    scroller.evaluate("node => { node.scrollTop = 700; node.scrollLeft = 2000; }")
    expect(page.locator("thead th", has_text="␣Japan").filter(visible=True).first).to_be_visible()
    box, corner = scroller.bounding_box(), page.locator("thead th.corner").nth(1).bounding_box()
    assert abs(corner["x"] - box["x"]) < 2 and corner["y"] - box["y"] < 30
    row = page.locator("tbody th", has_text="20").bounding_box()
    assert abs(row["x"] - box["x"]) < 2


# --- hostile strings ---


def hostile_records():
    return [
        replace(
            record,
            name=f"{text} {number}",
            category=text,
            prompt=text,
            prompt_output=text,
            prompt_token_list=(text,),
            current_token=text,
            token_source="prompt",
            repeat_prompt=text,
            repeat_prompt_name=text,
            interpretation=(1,),
            interpretation_text=text,
            interpretation_tokens=(text,),
            interpretation_weights=(0.5,),
            interpretation_prob=(0.25,),
            answer=text,
            layer_idx=0,
            token_idx=0,
        )
        for number, (record, text) in enumerate(zip(itertools.cycle(RECORDS), HOSTILE))
    ]


def as_html_shows(text):
    """What a text becomes in a document: lone surrogates cannot be written, a control character stays."""
    return text.replace("\ud800", "\ufffd")


def test_hostile_strings_appear_as_text_and_nothing_runs(open_page, tmp_path):
    write_page(hostile_records(), tmp_path / "page.html", title=HOSTILE[1])
    page = open_page(tmp_path / "page.html")
    assert page.title() == HOSTILE[1]
    for number, text in enumerate(HOSTILE):
        assert page.locator(f"#example-{number} dd.text").first.text_content() == as_html_shows(text)
        assert page.locator(f"#example-{number} pre").text_content() == as_html_shows(text)
        page.locator(f"#example-{number} .view").scroll_into_view_if_needed()
        shown = cell(page, 0, 0, number)
        shown.hover()
        # JSON carries a lone surrogate to the script as it is; the driver's own wire replaces it.
        assert page.locator("#words").text_content().replace("\ud800", "\ufffd") == as_html_shows(text)
        page.locator(f"#example-{number} .find-answer").click()
        assert shown.evaluate("td => td.classList.contains('hit')") or "\ud800" in text
    page.click("#table")
    for number, text in enumerate(HOSTILE):
        page.locator(f"#example-{number} .view").scroll_into_view_if_needed()
        shown = page.locator(f"#example-{number} td.long").text_content()
        assert shown.replace("\ud800", "\ufffd") == as_html_shows(text)
    assert page.evaluate("window.sentinel") is None
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator("img, iframe, object, embed, link").count() == 0


def test_the_policy_stops_what_escaping_might_have_missed(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    stopped = page.evaluate(
        """async () => {
            const stopped = [];
            document.addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.sentinel = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<img src="https://example.invalid/x.png">');
            document.body.insertAdjacentHTML("beforeend", '<p onclick="window.sentinel = 2" style="color: red">');
            document.body.lastChild.click();
            await fetch("https://example.invalid/").catch(() => {});
            await new Promise((done) => setTimeout(done));
            return stopped;
        }"""
    )
    assert set(stopped) == {"script-src-elem", "script-src-attr", "style-src-attr", "img-src", "connect-src"}
    assert page.evaluate("window.sentinel") is None
    page.close()


# --- a real run ---


def test_the_page_of_a_real_run_shows_what_the_model_thinks(open_page, embedded_folder, tmp_path):
    examples = {"examples": [{"prompt": "The capital of Japan is", "raw": True, "answer": "Tokyo"}]}
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    script = Path(__file__).resolve().parents[2] / "scripts" / "get_interpretations_from_examples.py"
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


# --- size ---

LARGE = {
    "one wide grid": {"examples": 1, "layers": 80, "tokens": 125},
    "many grids": {"examples": 40, "layers": 25, "tokens": 10},
}


@pytest.mark.parametrize("shape", LARGE)
def test_ten_thousand_cells_cost_what_is_in_view(open_page, tmp_path, shape):
    large = grid_records(**LARGE[shape], length=30)
    assert len(large) == 10_000
    write_page(large, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    expect(page.locator("table.grid").first).to_be_visible()
    assert page.locator("*").count() < 3000
    page.locator(".view").last.scroll_into_view_if_needed()
    page.locator(".scroller").last.evaluate(
        "node => { node.scrollLeft = node.scrollWidth; node.scrollTop = node.scrollHeight; }"
    )
    last = page.locator(".grid").last.locator("tbody tr").last.locator("td").last
    first_of_last_example = len(large) - len(large) // LARGE[shape]["examples"]
    lowest_right = large[first_of_last_example + LARGE[shape]["tokens"] - 1]
    expect(last).to_have_text(lowest_right.interpretation_text.strip().replace("\n", "⏎")[:64])
    assert page.locator(".view").last.locator("*").count() < 3000
    page.fill("#search", "tokyo")
    found = sum("tokyo" in record.interpretation_text.lower() for record in large)
    expect(page.locator("#count")).to_contain_text(f"{found:,} matches")


def test_the_keyboard_reaches_columns_that_are_not_drawn(open_page, tmp_path):
    wide = grid_records(examples=1, layers=3, tokens=200)
    write_page(wide, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    page.locator("td").first.click()
    page.keyboard.press("End")
    assert_told(page, wide[2 * 200 + 199])
    page.keyboard.press("ArrowLeft")
    assert_told(page, wide[2 * 200 + 198])
    # Scrolled away, the focus stays in the grid and the next key goes on from where the cursor was.
    page.locator(".scroller").evaluate("node => { node.scrollLeft = 0; }")
    expect(page.locator(".scroller")).to_be_focused()
    page.keyboard.press("ArrowDown")
    assert_told(page, wide[1 * 200 + 198])
    expect(page.locator("td:focus")).to_be_in_viewport()


# --- notebook ---


def test_the_notebook_view_works_in_its_frame_and_leaves_the_notebook_alone(browser, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><p id=own>own</p>{notebook_view(records())}", encoding="utf-8")
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    expect(frame.locator("table.grid").first).to_be_visible()
    frame.locator("table.grid").first.locator("td").first.hover()
    expect(frame.locator("#place")).to_contain_text("layer 4")
    assert page.locator("script, style, link").count() == 0
    reached = page.frames[1].evaluate(
        "() => { try { return parent.document.title } catch (error) { return error.name } }"
    )
    assert reached == "SecurityError"
    rows = page.locator("details tbody tr").all()
    assert len(rows) == 5
    page.close()


def time_to_open() -> None:
    """Print how long 10,000 cells take from the start of loading to the second frame painted."""
    painted = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
    with tempfile.TemporaryDirectory() as folder, chromium() as running:
        for shape, settings in LARGE.items():
            path = Path(folder) / "page.html"
            write_page(grid_records(**settings, length=30), path)
            times = []
            for _ in range(5):
                page = running.new_page(viewport={"width": 1280, "height": 800})
                page.goto(path.as_uri())
                page.wait_for_selector("table.grid td")
                times.append(page.evaluate(painted))
                page.close()
            size = path.stat().st_size / 10_000
            print(f"10,000 cells, {shape}: {sorted(times)[2]:.0f} ms (median of 5), {size:.0f} bytes a cell")


if __name__ == "__main__":
    time_to_open()
