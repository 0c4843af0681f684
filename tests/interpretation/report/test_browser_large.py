"""Narrow windows and large results in a browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import expect
from report_page import (
    LARGE,
    assert_told,
    records,
)
from report_records import grid_records
from transformers.interpretation.report import write_page


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
