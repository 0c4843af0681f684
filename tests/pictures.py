"""Make the pictures of the documents: python tests/pictures.py runs/demo/interpretations.csv EXAMPLE FOLDER"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from transformers import AutoModelForCausalLM
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.interpretations import Interpretations, read_csv
from transformers.interpretation.models.tokenizer import Tokenizer
from transformers.interpretation.report import show, write_page
from transformers.interpretation.runs.manifest import tokenizer_beside

COLOURS = 128


def main(csv: str, example: str, folder: str) -> None:
    """Write `explorer.png`, `terminal.png`, and `report.png`, where the lowest cell that names the answer is chosen."""
    tokenizer = tokenizer_beside(Path(csv))
    results = read_csv(csv).with_token_texts(tokenizer)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        save(explorer(page, tokenizer), Path(folder) / "explorer.png")
        save(report(page, results, example, Path(scratch)), Path(folder) / "report.png")
        save(terminal(page, results, example, Path(scratch)), Path(folder) / "terminal.png")
        browser.close()


def report(page: Page, results: Interpretations, example: str, scratch: Path) -> bytes:
    """The page, scrolled to the example, with the cell that names its answer chosen."""
    write_page(results, scratch / "page.html", title="interpretations.csv")
    page.goto((scratch / "page.html").as_uri())
    number = list(dict.fromkeys(record.name for record in results)).index(example)
    page.locator(".overview a").nth(number).click()
    page.locator(f"#example-{number} .find-answer").click()
    cell = page.locator(f"#example-{number} td.hit").last.element_handle()
    page.fill("#search", "")
    cell.click()
    page.evaluate(f"document.getElementById('example-{number}').scrollIntoView({{behavior: 'instant'}})")
    page.locator(f"#example-{number} .scroller").evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.mouse.move(0, 0)
    return page.screenshot()


def terminal(page: Page, results: Interpretations, example: str, scratch: Path) -> bytes:
    """What `--show` prints, as rich draws a terminal."""
    console = Console(width=110, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    show(results, example=example, console=console)
    # rich asks a public server for its font; pictures are made without a network.
    drawing = console.export_svg(title="--show").replace("https://", "about:")
    (scratch / "terminal.svg").write_text(drawing, encoding="utf-8")
    page.set_viewport_size({"width": 1000, "height": 700})
    page.goto((scratch / "terminal.svg").as_uri())
    return page.locator("svg").first.screenshot()


def explorer(page: Page, tokenizer: Tokenizer) -> bytes:
    """The live page of the run's model as it opens, once all cells are there."""
    model = AutoModelForCausalLM.from_pretrained(tokenizer.name_or_path)
    with Explorer(model, tokenizer) as running:
        page.goto(running.url)
        expect(page.locator("#count")).to_have_text(re.compile("^[0-9]+ cells$"), timeout=300_000)
        page.mouse.move(0, 0)
        return page.screenshot()


def save(screenshot: bytes, path: Path) -> None:
    """As a PNG with few colours, a third of the size."""
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
