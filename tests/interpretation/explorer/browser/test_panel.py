"""The panel of a chosen cell: what it shows, and what can be tried there."""

from __future__ import annotations

from pathlib import Path

import pytest
from explorer_page import MODEL, QUICK, TOKENIZER, cell, cells_of, expect_done, wanted, words
from playwright.sync_api import expect
from transformers.interpretation import interpret
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec

NUMBERS = {name: int(value) for name, value in QUICK.items()}


@pytest.fixture
def page(open_page, explorer):
    """One with the cell of layer 3, token 1 chosen."""
    page = open_page(explorer, prompt="abc", layers="1,3")
    expect_done(page, 8)
    cell(page, 3, 1).click()
    expect(page.locator("#detail h2")).to_have_text("layer 3 · token 1 b")
    return page


def text_of(cells, layer=3, token=1):
    return "".join(cells[layer, token][3]).replace("\n", "⏎")


def section(page, title):
    found = page.locator("details.section").filter(has=page.locator("summary", has_text=title))
    if not found.evaluate("node => node.open"):
        found.locator("summary").click()
    return found


def settled(answer):
    expect(answer).to_have_attribute("aria-busy", "false", timeout=60_000)
    return answer


def test_it_tells_the_whole_text_and_each_word(page):
    _, _, mean, texts, relevancy, probability, trust = wanted("abc", layers=[3])[3, 1]
    card = page.locator("#detail .card")
    assert words(card) == "".join(texts).replace("\n", "⏎")
    expect(card.locator(".numbers")).to_contain_text(f"relevancy {mean / 1000:.3f}")
    expect(card.locator(".numbers")).to_contain_text(f"trust {trust / 10:.1f}\u00a0%")
    rows = [row.locator("td").all_text_contents() for row in page.locator(".bars tbody tr").all()]
    assert rows == [[f"{p / 1000:.3f}", f"{r / 1000:.3f}"] for p, r in zip(probability, relevancy)]
    parts = page.locator(".bars .probable").evaluate_all(
        "bars => bars.map(bar => bar.style.getPropertyValue('--part'))"
    )
    assert [float(part) for part in parts] == [p / 1000 for p in probability]


@pytest.mark.parametrize(
    ("label", "value", "option"),
    [
        ("strength", "0.3", {"overlay_strength": 0.3}),
        ("guidance γ", "2", {"guidance": 2.0}),
        ("at layer", "0,2", {"insert_layer": [0, 2]}),
    ],
)
def test_a_slider_recomputes_the_cell_as_interpret_does(page, label, value, option):
    how = section(page, "How it is inserted")
    how.get_by_label(label).fill(value)
    answer = settled(how.locator(".answer"))
    assert words(answer) == text_of(wanted("abc", layers=[3], **option))
    assert words(page.locator("#detail .card")) == text_of(wanted("abc", layers=[3]))  # the grid's own stays beside it


def test_of_several_slides_the_last_one_counts(page):
    how = section(page, "How it is inserted")
    for strength in ("0.1", "0.2", "0.5", "0.9", "0.3"):
        how.get_by_label("strength").fill(strength)
        page.wait_for_timeout(160)  # so that each of them is asked
    expect(how.locator(".answer .hint")).to_contain_text("strength 0.3", timeout=60_000)
    assert words(settled(how.locator(".answer"))) == text_of(wanted("abc", layers=[3], overlay_strength=0.3))


def test_the_whole_grid_takes_over_what_was_tried(page):
    how = section(page, "How it is inserted")
    how.get_by_label("strength").fill("0.3")
    settled(how.locator(".answer"))
    how.get_by_text("Use for the whole grid").click()
    expect_done(page, 8)
    assert page.input_value("#overlay_strength") == "0.3"
    assert cells_of(page) == wanted("abc", layers=[1, 3], overlay_strength=0.3)


def test_a_prompt_of_ones_own(page):
    how = section(page, "How it is inserted")
    how.get_by_label("into the prompt").select_option("one of your own …")
    how.get_by_label("its text").fill("x _ y")
    answer = settled(how.locator(".answer"))
    spec = InterpretationPromptSpec("custom", text="x _ y")
    assert words(answer) == text_of(wanted("abc", layers=[3], interpretation_prompt=spec))


def test_a_generated_token_is_tried_itself_and_not_its_neighbour(page):
    cell(page, 3, 3).click()
    how = section(page, "How it is inserted")
    how.get_by_label("strength").fill("0.3")
    answer = settled(how.locator(".answer"))
    assert words(answer) == text_of(wanted("abc", layers=[3], overlay_strength=0.3), token=3)


def test_a_question(page):
    asked = section(page, "Ask about it")
    asked.get_by_label("A question about this cell").fill("why?")
    asked.get_by_role("button", name="Ask").click()
    expect(settled(asked.locator(".answer")).locator(".words")).to_be_visible()


def test_a_text_that_the_cell_may_mean(page):
    asked = section(page, "Does it mean")
    asked.get_by_label("A text that this cell may mean").fill("xy")
    asked.get_by_role("button", name="Try").click()
    answer = settled(asked.locator(".answer"))
    expect(answer.locator(".hint")).to_contain_text("probable with the embedding as without it")
    assert words(answer) == " xy"


def test_the_other_prompts(page):
    section(page, "Alternatives").get_by_role("button", name="other prompts").click()
    answer = settled(section(page, "Alternatives").locator(".answer"))
    names = page.evaluate("about.interpretation_prompts.filter(name => name !== 'describe')")
    assert answer.locator("dt").all_text_contents() == names


def test_samples_are_those_of_interpret_and_others_at_every_click(page):
    drawn = section(page, "Alternatives")
    for seed in (0, 1):
        drawn.get_by_role("button", name="Draw five samples").click()
        expect(drawn.locator("dt")).to_have_count(5)
        answer = settled(drawn.locator(".answer"))
        texts = ["".join(one.locator("span:not(.silent)").all_text_contents()) for one in answer.locator("dd").all()]
        own = interpret(MODEL, TOKENIZER, "abc", raw=True, layers=[3], tokens=[1], samples=5, seed=seed, **NUMBERS)
        assert texts == [record.interpretation_text.replace("\n", "⏎") for record in own]


def test_two_cells_beside_each_other(page):
    page.click(".pin")
    cell(page, 1, 0).click()
    pinned, own = page.locator("#detail .card").all()
    cells = wanted("abc", layers=[1, 3])
    assert (words(pinned), words(own)) == (text_of(cells), text_of(cells, 1, 0))
    page.click(".pin")
    expect(page.locator("#detail .card")).to_have_count(1)


def test_what_is_wrong_with_a_setting_is_said_where_it_was_made(open_page, explorer):
    page = open_page(explorer, prompt="abc", layers="3", expected="the server responded with a status of 422")
    expect_done(page, 4)
    how = section(page, "How it is inserted")
    how.get_by_label("at layer").fill("77")
    expect(settled(how.locator(".answer")).locator(".problem")).to_contain_text("77")


def test_files(page):
    for form, beginning in (("csv", b"name,category"), ("parquet", b"PAR1"), ("page", b"<!DOCTYPE html>")):
        with page.expect_download() as download:
            page.click(".menu summary")
            page.click(f'[data-format="{form}"]')
        assert Path(download.value.path()).read_bytes().startswith(beginning)


def test_the_lines_of_python_are_shown(page):
    page.click(".menu summary")
    page.click('[data-format="python"]')
    code = page.locator("#offer pre")
    expect(code).to_contain_text("interpret(model, tokenizer, 'abc'")
    compile(code.text_content(), "shown", "exec")
    assert f"max_new_tokens={QUICK['max_new_tokens']}" in code.text_content()
    page.keyboard.press("Escape")
    expect(page.locator("#offer")).to_be_hidden()
