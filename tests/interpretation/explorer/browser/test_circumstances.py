"""The page in unusual circumstances: servers that stop, hostile prompts, tokens, keyboards, small screens."""

from __future__ import annotations

import html
import re

import pytest
from explorer_page import (
    GONE,
    LAYERS,
    MODEL,
    TOKENIZER,
    address,
    cell,
    cells_of,
    expect_done,
    serve,
    slow_model,
    until,
    wanted,
)
from playwright.sync_api import expect
from report_records import HOSTILE
from transformers.interpretation import interpret
from transformers.interpretation.explorer import Explorer

REFUSED = "the server responded with a status of"


def test_a_server_that_went_and_came_back(open_page):
    prompt = "abcdefgh" * 12
    with slow_model(), serve() as explorer:
        page = open_page(explorer, prompt=prompt, layers="1,2", max_new_tokens="8", expected=GONE)
        until(page, "boards[0].cells.size > 0")
    expect(page.locator("#banner")).to_contain_text("The server does not answer.", timeout=30_000)
    before = len(cells_of(page))
    assert 0 < before < 2 * 97
    with serve(port=explorer.port):
        expect_done(page, 2 * 97)
        expect(page.locator("#banner")).to_be_hidden()
        assert cells_of(page) == wanted(prompt, layers=[1, 2], max_new_tokens=8)


def test_trials_wait_for_the_server_too(open_page):
    with serve() as explorer:
        page = open_page(explorer, prompt="ab", layers="1", expected=GONE)
        expect_done(page, 3)
    page.get_by_label("strength").last.fill("0.3")
    expect(page.locator("#banner")).to_be_visible()
    with serve(port=explorer.port):
        expect(page.locator(".section .answer .words")).to_be_visible(timeout=30_000)
        expect(page.locator("#banner")).to_be_hidden()


def test_a_server_that_goes_without_a_word_is_noticed(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1", expected=GONE)
    expect_done(page, 3)
    page.route("**/interpret", lambda route: None, times=1)  # never answered, as behind a tunnel that broke
    page.route("**/health", lambda route: route.abort())
    page.fill("#layers", "2")
    page.keyboard.press("Enter")
    expect(page.locator("#banner")).to_contain_text("The server does not answer.")
    page.unroute("**/health")
    expect_done(page, 3)
    assert (2, 1) in cells_of(page)
    expect(page.locator("#banner")).to_be_hidden()


def test_a_server_that_comes_back_with_another_token(open_page):
    with serve(token="first") as explorer:
        page = open_page(explorer, url=address(explorer, prompt="ab", layers="1"), expected=GONE)
        expect_done(page, 3)
    with serve(token="second", port=explorer.port):
        page.fill("#layers", "2")
        page.keyboard.press("Enter")
        expect(page.locator("body")).to_contain_text("token")


def test_a_server_that_comes_back_with_another_model(open_page):
    with serve() as explorer:
        page = open_page(explorer, prompt="ab", layers="1", expected=GONE)
        expect_done(page, 3)
    page.click("#run")
    expect(page.locator("#banner")).to_be_visible()
    with Explorer(MODEL, TOKENIZER, name="other", port=explorer.port):
        expect(page.locator("#banner")).to_contain_text("another model, other", timeout=30_000)


def test_a_busy_server_is_asked_again(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1", expected=REFUSED)
    expect_done(page, 3)
    busy = {"status": 503, "json": {"detail": "9 cells are waiting."}}
    page.route("**/interpret", lambda route: route.fulfill(**busy), times=1)
    page.fill("#layers", "2")
    page.keyboard.press("Enter")
    expect(page.locator(".board .problem")).to_contain_text("9 cells are waiting. This page tries again")
    expect(page.locator(".board .problem")).to_be_hidden()
    expect_done(page, 3)
    assert (2, 1) in cells_of(page)


@pytest.mark.parametrize(("field", "value"), [("layers", "99"), ("tokens", "one"), ("overlay_strength", "7")])
def test_what_cannot_be_done_is_said_in_a_sentence(open_page, explorer, field, value):
    page = open_page(explorer, prompt="ab", expected=REFUSED, **{field: value})
    expect(page.locator(".board .problem")).to_contain_text(value)
    page.evaluate(f"document.getElementById('{field}').value = '1'")
    page.evaluate("document.getElementById('ask').requestSubmit()")
    expect_done(page)
    expect(page.locator(".board .problem")).to_be_hidden()


SHORT = [text for text in HOSTILE if len(text) < 1000 and "\ud800" not in text]
UNUSUAL = [*SHORT, "\u202eשלום עולם", "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301", "\x00\x07", "</textarea><h1>x", "   "]


@pytest.mark.parametrize("prompt", UNUSUAL)
def test_hostile_prompts_are_text(open_page, explorer, prompt):
    page = open_page(explorer, prompt=prompt, layers="1", tokens="last", max_new_tokens="1")
    expect_done(page, 1)
    assert page.input_value("#prompt") == prompt.replace("\r\n", "\n")
    assert page.locator("#chips button").count() == len(TOKENIZER.encode(prompt))
    assert page.evaluate("window.sentinel") is None
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator("img, iframe, object, embed, link, h1:has-text('x')").count() == 0


def test_a_prompt_of_ten_thousand_tokens(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1")
    expect_done(page, 3)
    page.fill("#prompt", "x" * 10_000)
    expect(page.locator("#chips .count")).to_have_text("… and 9800 more: 10,000 tokens")
    until(page, "boards[0].columns.length === 10000")
    assert page.locator(".board td").count() < 40 * LAYERS


def test_the_policy_stops_what_might_have_been_missed(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1", expected="Content Security Policy")
    expect_done(page, 3)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.sentinel = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<p onclick="window.sentinel = 2">');
            document.body.lastChild.click();
        }"""
    )
    assert page.evaluate("window.sentinel") is None
    assert page.evaluate("fetch('https://example.invalid/').then(() => 'sent', () => 'stopped')") == "stopped"


def test_a_token_is_asked_for_once_and_leaves_the_address(open_page):
    with serve(token="secret") as explorer:
        page = open_page(explorer, url=address(explorer, prompt="ab", layers="1"))
        expect_done(page, 3)
        assert "secret" not in page.url
        page.reload()
        expect_done(page, 3)
        stranger = open_page(explorer, url=explorer.url.replace("secret", "guess"), expected=REFUSED)
        expect(stranger.locator("body")).to_contain_text("token")


def test_the_address_restores_prompt_settings_and_chosen_cell(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1,3")
    expect_done(page, 6)
    page.fill("#prompt", "a & b#=é")
    page.keyboard.press("Enter")
    expect_done(page, 20)
    cell(page, 3, 2).click()
    expect(page.locator("#detail h2")).to_contain_text("layer 3 · token 2")
    before = cells_of(page)
    page.reload()
    expect_done(page, 20)
    assert page.input_value("#prompt") == "a & b#=é"
    assert cells_of(page) == before
    expect(page.locator("#detail h2")).to_contain_text("layer 3 · token 2")


def test_a_page_opened_from_results_shows_what_they_hold(open_page):
    options = {"layers": [1, 3], "tokens": [0, 2], "max_new_tokens": 30, "insert_layer": 1, "raw": True}
    results = interpret(MODEL, TOKENIZER, "ab cd", **options)
    with results.explore(MODEL, TOKENIZER) as explorer:
        page = open_page(explorer, url=explorer.url)
        expect_done(page, 4)
        texts = {place: "".join(found[3]) for place, found in cells_of(page).items()}
        assert texts == {(record.layer_idx, record.token_idx): record.interpretation_text for record in results}
        page.close()  # before the server: what the page asked of one that closes would be an error on its console


def test_a_notebook_shows_the_page_in_its_frame(browser, explorer, tmp_path):
    frame = explorer._repr_html_().replace(html.escape(explorer.url), html.escape(address(explorer, prompt="ab")), 1)
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}", encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    expect(page.frame_locator("iframe").locator("#count")).to_have_text("15 cells", timeout=30_000)
    page.close()


def test_the_keyboard_alone(open_page, explorer):
    page = open_page(explorer, prompt="zz", layers="0", tokens="0")
    expect_done(page, 1)
    tab_to(page, "#prompt")
    page.keyboard.press("Control+a")
    page.keyboard.type("abcd")
    page.keyboard.press("Enter")
    expect(cell(page, 4, 3)).to_be_attached()  # the longer prompt's grid: the one before was done, too
    expect_done(page, 1)
    tab_to(page, ".board td")
    page.keyboard.press("Control+Home")
    expect(cell(page, 4, 0)).to_be_focused()
    for key in ("ArrowDown", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert page.locator('td[aria-selected="true"]').count() == 4
    page.keyboard.press("Enter")
    expect_done(page, 4)
    assert (page.input_value("#layers"), page.input_value("#tokens")) == ("2:4", "1:3")
    expect(cell(page, 2, 2)).to_be_focused()
    expect(page.locator("#detail h2")).to_have_text("layer 2 · token 2 c")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_focused()
    tab_to(page, "#trial-strength")
    page.keyboard.press("Home")
    expect(page.locator(".section .answer .words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(cell(page, 2, 2)).to_be_focused()


def tab_to(page, selector: str) -> None:
    for _ in range(40):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not come to {selector}")


def test_a_screen_of_400_pixels(open_page, explorer):
    page = open_page(explorer, prompt="abcdefghij", layers="1,3", width=400, height=800)
    expect_done(page, 22)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    cell(page, 3, 0).click()
    expect(page.locator("#detail h2")).to_contain_text("layer 3 · token 0")
    page.locator("#detail").scroll_into_view_if_needed()
    page.click(".settings summary")
    page.select_option("#view", "beside")
    expect_done(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    controls = page.locator("button:visible, select:visible, input:visible, textarea:visible")
    edges = controls.evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right])"
    )
    assert all(left >= 0 and right <= 400 for left, right in edges)


def test_progress_is_told_to_those_who_listen(open_page, explorer):
    page = open_page(explorer, prompt="abcd")
    expect_done(page, 25)
    expect(page.get_by_role("status")).to_have_text("25 cells")
    assert page.locator("#banner").get_attribute("role") == "alert"
    assert page.locator("table.grid").get_attribute("aria-label").endswith("layers down, tokens across")
    nameless = page.locator("input:visible, select:visible, textarea:visible").evaluate_all(
        "all => all.filter(one => !one.labels.length && !one.ariaLabel).map(one => one.id)"
    )
    assert nameless == []


def test_whatever_can_be_operated_has_a_name(open_page, explorer):
    """As Chromium tells assistive software, with a cell chosen and every part of the page opened."""
    page = open_page(explorer, prompt="abcd")
    expect_done(page, 25)
    cell(page, 3, 0).click()
    expect(page.locator("#detail h2")).to_contain_text("layer 3 · token 0")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    operated = [node for node in tree if not node["ignored"] and node["role"]["value"] in OPERATED]
    assert {node["role"]["value"] for node in operated} >= {"button", "textbox", "slider", "combobox"}
    assert [node for node in operated if not node.get("name", {}).get("value", "").strip()] == []


OPERATED = ("button", "textbox", "slider", "spinbutton", "combobox", "checkbox", "link", "DisclosureTriangle")
"""Roles."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_those_that_the_reader_prefers(open_page, explorer, scheme):
    page = open_page(explorer, prompt="ab")
    expect_done(page, 15)
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
    text, ground = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in colours)
    assert (text > ground) == (scheme == "dark")
