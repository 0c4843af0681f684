"""A browser, servers, and pages that are watched for errors and for requests to anywhere else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from explorer_page import address, serve
from playwright.sync_api import expect
from report_page import chromium


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=20_000)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def explorer():
    with serve() as running:
        yield running


@pytest.fixture
def open_page(browser):
    """Opens an explorer's page, which must have had no error and sent no request to another host by the end.

    expected: a part of messages on the console that the test is about.
    """
    contexts, problems = [], []

    def open_one(explorer, *, width=1280, height=900, expected="nothing", url=None, **fields):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        home = urlsplit(explorer.url).netloc

        def hear(text):
            if expected not in text:
                problems.append(text)

        page.on("console", lambda message: hear(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: problems.extend([request.url] * (not is_own(request.url, home))))
        page.goto(url or address(explorer, **fields))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def is_own(url: str, home: str) -> bool:
    return url.startswith("blob:") or urlsplit(url).netloc == home
