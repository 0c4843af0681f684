"""The explorer's page in a real browser: servers of tiny models, and how the page's parts are found."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from urllib.parse import urlencode

from playwright.sync_api import expect
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import interpret
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.report.page import cell_data
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION

MODEL, TOKENIZER = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=1024), tiny_tokenizer(chat=True)
LAYERS = 5
QUICK = {"max_new_tokens": "3", "insert_layer": "1"}
"""Fields of the form that keep a tiny model's answers short."""


def serve(**options) -> Explorer:
    """A server of a tiny random model."""
    return Explorer(MODEL, TOKENIZER, name="tiny", **options)


GONE = "Failed to load resource"
"""What Chromium's console says of requests to a server that is not there, or is about to go."""


def address(explorer: Explorer, **fields) -> str:
    """The page with these fields of its form filled in."""
    return f"{explorer.url}#{urlencode({**QUICK, **fields})}"


@contextmanager
def slow_model():
    """Slows the model down, so that there is time to stop it."""
    hook = MODEL.model.layers[0].register_forward_pre_hook(lambda *_: time.sleep(0.1))
    yield
    hook.remove()


def wanted(prompt: str, **options) -> dict[tuple[int, int], list]:
    """(layer, token) → the cell that `interpret` gives, as the page's data has it."""
    quick = {name: int(value) for name, value in QUICK.items()}
    results = interpret(MODEL, TOKENIZER, prompt, **{"raw": True, "prompt_output_tokens": 1, **quick, **options})
    cells = [cell_data(record, BUILT_IN_CALIBRATION) for record in results]
    return {(layer, token): [layer, token, *rest] for layer, token, *rest in cells}


def cell(page, layer: int, token: int, board: int = 0):
    """The cell's place in the grid."""
    row = page.locator(".board").nth(board).locator("tbody tr").filter(has=page.locator(f'th:text-is("{layer}")'))
    return row.locator(f'td[aria-colindex="{token + 2}"]')


def head(page, token: int):
    """A token in the grid's head."""
    return page.locator(".board thead tr").nth(1).locator("th").nth(token + 1)


def expect_done(page, cells: int | None = None) -> None:
    """Wait until all that was asked for is there."""
    number = r"[\d,]+" if cells is None else f"{cells:,}"
    expect(page.locator("#count")).to_have_text(re.compile(f"^{number} cells?$"), timeout=60_000)


def until(page, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's policy forbids the driver's own way."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition} has not come true")


def cells_of(page, board: int = 0) -> dict[tuple[int, int], list]:
    """(layer, token) → the cell as the server sent it."""
    cells = json.loads(page.evaluate(f"JSON.stringify([...boards[{board}].cells.values()])"))
    return {(layer, token): [layer, token, *rest] for layer, token, *rest in cells}


def drag(page, start, end) -> None:
    """From the middle of one element to that of another."""
    for where, act in ((start, page.mouse.down), (end, page.mouse.up)):
        box = where.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
        act()


def touch(page, start, end, *, rest: int) -> None:
    """A finger on the middle of one element rests for so many milliseconds, then moves to that of another and lifts."""
    session = page.context.new_cdp_session(page)

    def middle(element) -> tuple[float, float]:
        box = element.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def act(kind: str, *points: tuple[float, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    (x, y), (last_x, last_y) = middle(start), middle(end)
    act("touchStart", (x, y))
    page.wait_for_timeout(rest)
    for part in (0.25, 0.5, 0.75, 1.0):
        act("touchMove", (x + part * (last_x - x), y + part * (last_y - y)))
    act("touchEnd")


def words(locator) -> str:
    """The interpretation that a part of the panel shows."""
    return "".join(locator.locator(".words span:not(.silent)").all_text_contents())
