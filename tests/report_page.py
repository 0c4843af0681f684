"""The report in a real browser, Debian's Chromium found on the PATH, and how its parts are found on the page.

How long 10,000 cells take to open: `python tests/report_page.py` prints it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from report_records import failed, grid_records
from transformers.interpretation.report import write_page

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
LARGE = {
    "one wide grid": {"examples": 1, "layers": 80, "tokens": 125},
    "many grids": {"examples": 40, "layers": 25, "tokens": 10},
}


def records():
    return [failed(record) if n == FAILED else record for n, record in enumerate(RECORDS) if n != ABSENT]


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
