"""Figures for print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_records import grid_records, hostile_records
from transformers.interpretation.report import (
    answers_figure,
    grid_figure,
)

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


@pytest.mark.filterwarnings("ignore:Glyph")  # the bundled font has no Chinese
@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_written_in_every_format(tmp_path, ending, magic):
    for name, figure in (("grid", grid_figure(RECORDS)), ("answers", answers_figure(RECORDS))):
        path = tmp_path / f"{name}.{ending}"
        figure.savefig(path)
        assert path.read_bytes().startswith(magic)


def test_the_grid_figure_says_what_the_records_say():
    example = [record for record in RECORDS if record.name == "fact_2" and record.repeat_prompt_name == "object"]
    axes = grid_figure(RECORDS, example="fact_2", reading="object").axes[0]
    texts = {(text.get_position()[0] // 1, text.get_position()[1] // 1): text.get_text() for text in axes.texts}
    assert len(texts) == len(example)
    for record in example:
        cell = texts[record.token_idx, 3 - record.layer_idx]
        assert record.interpretation_text.strip().replace("\n", "⏎").startswith(cell.rstrip("…"))
    with pytest.raises(ValueError, match="no interpretation prompt 'other'; it has: describe, object"):
        grid_figure(RECORDS, reading="other")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_strings_are_no_formulas_in_figures(tmp_path):
    for number, record in enumerate(hostile_records(RECORDS)):
        grid_figure([record]).savefig(tmp_path / f"{number}.svg")
        answers_figure([record]).savefig(tmp_path / f"{number}.pdf")


def test_without_answers_there_is_nothing_to_count():
    with pytest.raises(ValueError, match='no example has an "answer"'):
        answers_figure([replace(record, answer=None) for record in RECORDS])
