"""Hostile strings in a browser: they appear as text, and nothing runs."""

from __future__ import annotations

from dataclasses import replace

from playwright.sync_api import expect
from report_page import (
    RECORDS,
    cell,
    records,
)
from report_records import HOSTILE, hostile_records
from transformers.interpretation.features.table import ShownContext
from transformers.interpretation.report import notebook_view, write_page


def as_html_shows(text):
    """What a text becomes in a document: lone surrogates cannot be written, a control character stays."""
    return text.replace("\ud800", "\ufffd")


def test_hostile_strings_appear_as_text_and_nothing_runs(open_page, tmp_path):
    write_page(hostile_records(RECORDS), tmp_path / "page.html", title=HOSTILE[1])
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


def test_contexts_are_shown_beside_the_interpretation_as_text(open_page, tmp_path):
    record = replace(RECORDS[0], name="vectors", layer_idx=None, token_source="vector", current_token="v")
    vectors = [replace(record, token_idx=index) for index in range(2)]
    texts = {0: [ShownContext(2.5, ("before ", text, " after"), 1) for text in HOSTILE[:5]]}
    write_page(vectors, tmp_path / "page.html", contexts=texts)
    page = open_page(tmp_path / "page.html")
    page.locator(".view td").first.hover()
    shown = page.locator("#contexts li")
    for number, text in enumerate(HOSTILE[:5]):
        expected = as_html_shows(text).replace("\n", "⏎")
        assert shown.nth(number).locator("mark").text_content().replace("\ud800", "\ufffd") == expected
        assert shown.nth(number).text_content().replace("\ud800", "\ufffd") == f"before {expected} after"
    assert shown.first.locator("mark").get_attribute("title") == "activation 2.5"
    page.locator(".view td").nth(1).hover()
    expect(shown).to_have_count(0)
    page.click("#table")
    expect(page.locator("td.long + td.texts .context")).to_have_count(5)
    heads = page.locator(".plain th").all_text_contents()
    assert heads[heads.index("interpretation") + 1] == "texts that activate it"
    assert page.evaluate("window.sentinel") is None
