"""The grid in a browser: what is asked for arrives, is the same as elsewhere, and can be chosen and stopped."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from explorer_page import (
    GONE,
    LAYERS,
    MODEL,
    TOKENIZER,
    cell,
    cells_of,
    drag,
    expect_done,
    head,
    serve,
    slow_model,
    touch,
    until,
    wanted,
)
from playwright.sync_api import expect
from transformers.interpretation.explorer import Explorer

IDLE = "fetch('health').then(answer => answer.json()).then(health => health.queued_cells === 0)"
SCRIPT = Path(__file__).resolve().parents[4] / "scripts" / "get_interpretations_from_examples.py"


def test_a_typed_prompt_is_tokenized_and_then_interpreted(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1")
    expect_done(page)
    page.fill("#prompt", "")
    page.locator("#prompt").press_sequentially("c d")
    expect(page.locator("#chips button")).to_have_text(["c", "␣", "d"])
    expect(page.locator("#chips .count")).to_have_text("3 tokens")
    assert cells_of(page) == {}  # nothing is computed before it is asked for
    page.keyboard.press("Enter")
    expect_done(page, 4)
    assert cells_of(page) == wanted("c d", layers=[1])


def test_enter_right_after_typing_is_not_undone_by_what_typing_began(open_page, explorer):
    page = open_page(explorer, prompt="ab", layers="1")
    expect_done(page)
    page.locator("#prompt").press_sequentially("c")
    page.keyboard.press("Enter")
    expect_done(page, 4)
    page.wait_for_timeout(400)  # longer than the page waits after the last key
    assert cells_of(page) == wanted("abc", layers=[1])


def test_all_cells_are_those_of_interpret(open_page, explorer):
    page = open_page(explorer, prompt="ab cd")
    expect_done(page, 6 * LAYERS)
    assert cells_of(page) == wanted("ab cd")
    for (layer, token), (*_, mean, texts, _, _, _) in cells_of(page).items():
        shown = "".join(texts).strip()[:20].replace("\n", "⏎")
        assert cell(page, layer, token).text_content().startswith(shown), (layer, token, mean)


def test_a_chat_message_is_read_through_the_template(open_page, explorer):
    page = open_page(explorer, prompt="ab", raw="chat", layers="2", tokens="last")
    expect_done(page, 1)
    assert cells_of(page) == wanted("ab", raw=False, layers=[2], tokens="last")


def test_the_grid_is_the_table_of_the_main_program(
    open_page, embedded_folder, embedded_model, embedded_tokenizer, tmp_path
):

    (tmp_path / "examples.json").write_text(
        json.dumps({"examples": [{"prompt": "The capital of France is", "raw": True}]})
    )
    where = ["--model", str(embedded_folder), "--examples", "examples.json", "--output", "out.csv", "--device", "cpu"]
    what = ["--layers", "0:31:15", "--max-new-tokens", "4", "--prompt-output-tokens", "1", "--dtype", "float32"]
    subprocess.run([sys.executable, str(SCRIPT), *where, *what], cwd=tmp_path, check=True, capture_output=True)
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with Explorer(embedded_model, embedded_tokenizer) as explorer:
        page = open_page(explorer, url=f"{explorer.url}#layers=0:31:15&max_new_tokens=4")
        expect_done(page, len(rows))
        found = cells_of(page)
        with page.expect_download() as download:
            page.click(".menu summary")
            page.click('[data-format="csv"]')
        file = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    for row in rows:
        _, _, _, texts, weights, probabilities, _ = found[int(row["layer_idx"]), int(row["token_idx"])]
        assert "".join(texts) == row["interpretation_text"]
        assert weights == pytest.approx([1000 * one for one in json.loads(row["interpretation_weights"])], abs=1)
        assert probabilities == pytest.approx([1000 * one for one in json.loads(row["interpretation_prob"])], abs=1)
    texts = {(row["layer_idx"], row["token_idx"]): row["interpretation_text"] for row in rows}
    assert {(row["layer_idx"], row["token_idx"]): row["interpretation_text"] for row in file} == texts


def test_dragging_over_an_empty_grid_interprets_what_was_dragged_over(open_page, explorer):
    page = open_page(explorer, prompt="abcd", layers="0", tokens="0")
    expect_done(page, 1)
    drag(page, cell(page, 3, 1), cell(page, 2, 2))
    expect_done(page, 4)
    assert (page.input_value("#layers"), page.input_value("#tokens")) == ("2:4", "1:3")
    assert set(cells_of(page)) == {(0, 0), (2, 1), (2, 2), (3, 1), (3, 2)}


def test_a_finger_that_rests_first_chooses_and_a_quick_one_scrolls(open_page, explorer):
    page = open_page(explorer, prompt="abcd", layers="0", tokens="0")
    expect_done(page, 1)
    touch(page, cell(page, 3, 1), cell(page, 0, 1), rest=0)
    page.wait_for_timeout(300)
    assert page.input_value("#layers") == "0"
    assert page.locator(".grid td.selected").count() == 0
    touch(page, cell(page, 3, 1), cell(page, 2, 2), rest=700)
    expect_done(page, 4)
    assert (page.input_value("#layers"), page.input_value("#tokens")) == ("2:4", "1:3")


def test_heads_margins_and_absent_cells_can_be_clicked(open_page, explorer):
    page = open_page(explorer, prompt="abcd", layers="0", tokens="0")
    expect_done(page, 1)
    head(page, 2).click()
    expect_done(page, LAYERS)
    assert {token for layer, token in cells_of(page) if layer} == {2}
    page.locator('.board tbody th:text-is("3")').click()
    expect_done(page, 5)
    cell(page, 1, 1).click()
    expect_done(page, 1)
    assert (1, 1) in cells_of(page)


def test_chips_choose_tokens(open_page, explorer):
    page = open_page(explorer, prompt="abcd", layers="1")
    expect_done(page, 5)
    page.locator("#chips button").nth(1).click()
    page.locator("#chips button").nth(3).click()
    assert page.input_value("#tokens") == "1,3"
    page.fill("#tokens", "0:2")
    pressed = [chip.get_attribute("aria-pressed") for chip in page.locator("#chips button").all()]
    assert pressed == ["true", "true", "false", "false"]


def test_stop_keeps_what_is_there_and_costs_nothing_more(open_page):
    with slow_model(), serve() as explorer:
        page = open_page(explorer, prompt="abcdefgh" * 12, expected=GONE)
        until(page, "boards[0].cells.size > 0")
        page.click("#stop")
        expect(page.locator("#count")).to_contain_text("stopped")
        expect(page.locator("#run")).to_be_visible()
        shown = len(cells_of(page))
        assert 0 < shown < 97 * LAYERS
        assert page.locator("td.awaited").count() == 0
        until(page, IDLE)
        assert len(cells_of(page)) == shown


def test_two_browsers_get_their_own_cells(open_page, explorer):
    pages = {prompt: open_page(explorer, prompt=prompt) for prompt in ("abc", "xyz")}
    for prompt, page in pages.items():
        expect_done(page, 4 * LAYERS)
        assert cells_of(page) == wanted(prompt)


def test_two_prompts_side_by_side_and_their_difference(open_page, explorer):
    page = open_page(explorer, prompt="abc", other="xyz", view="beside", layers="1,3")
    expect_done(page, 16)
    assert cells_of(page, 0) == wanted("abc", layers=[1, 3])
    assert cells_of(page, 1) == wanted("xyz", layers=[1, 3])
    page.select_option("#view", "difference")
    expect_done(page, 6)
    assert cells_of(page) == wanted("abc", minus="xyz", layers=[1, 3])


def test_the_table_holds_the_same_for_screen_readers(open_page, explorer):
    page = open_page(explorer, prompt="abc", layers="1,2")
    expect_done(page, 8)
    page.click("#table")
    rows = page.locator("table.plain tbody tr")
    expect(rows).to_have_count(8)
    assert page.locator("table.plain th[scope=col]").count() == 10
    first = wanted("abc", layers=[2])[2, 0]
    assert rows.first.locator("td").nth(5).text_content() == "".join(first[3])


def test_cells_of_little_trust_can_be_hidden(open_page, explorer):
    page = open_page(explorer, prompt="abcd", layers="1,2,3")
    expect_done(page, 15)
    trusts = {place: found[6] for place, found in cells_of(page).items()}
    level = page.locator("#trust option").nth(1).get_attribute("value")
    hidden = {place for place, trust in trusts.items() if trust < int(level)}
    assert 0 < len(hidden) < 15
    page.select_option("#trust", level)
    shown = {place for place in trusts if cell(page, *place).text_content() != "·"}
    assert shown == set(trusts) - hidden
    page.select_option("#trust", "0")
    expect(page.locator("td.hidden")).to_have_count(0)


def test_the_logit_lens_stands_beside_each_cell(open_page, explorer):
    import torch

    page = open_page(explorer, prompt="abc", layers="0,4")
    expect_done(page, 8)
    page.select_option("#lens", "logit")
    expect(page.locator("td .lens-word")).to_have_count(3 * LAYERS)
    ids = torch.tensor([TOKENIZER.encode("abc")])
    best = MODEL(ids).logits[0, 1].softmax(-1).topk(3)
    title = cell(page, LAYERS - 1, 1).locator(".lens-word").get_attribute("title")
    assert [float(found) for found in re.findall(r"([\d.]+)\u00a0%", title)] == pytest.approx(
        (100 * best.values).tolist(), abs=0.06
    )
    page.select_option("#lens", "")
    expect(page.locator("td .lens-word")).to_have_count(0)
