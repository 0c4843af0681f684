"""A browser, and pages open in it."""

from __future__ import annotations

import pytest
from report_page import chromium, records
from transformers.interpretation.report import write_page


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
