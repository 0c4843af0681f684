"""The report without a browser: what the page holds, strings, colours, terminal view, figures, command."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_records import HOSTILE, data_of, grid_records
from rich.cells import cell_len
from rich.console import Console
from transformers.interpretation.report import (
    answer_shares,
    answers_figure,
    grid_figure,
    notebook_view,
    page,
    show,
    write_page,
)
from transformers.interpretation.report.__main__ import main
from transformers.interpretation.report.grid import examples_of, names_answer, relevancy_scale
from transformers.interpretation.report.palette import STEPS, ink, luminance, ramp, step_of
from transformers.interpretation.report.strings import encodable, inert, readable_tokens, visible
from transformers.interpretation.results import Interpretations
from transformers.interpretation.trust import Calibration

RECORDS = grid_records(examples=2, layers=4, tokens=3, prompts=("describe", "object"))


def failed(record):
    return replace(
        record,
        interpretation=(),
        interpretation_text="",
        interpretation_tokens=(),
        interpretation_weights=(),
        interpretation_prob=(),
        status="the embedding has NaN",
    )


def hostile_records():
    """Every text of every record is one of the hostile strings."""
    return [
        replace(
            record,
            name=f"{text} {number}",
            category=text,
            prompt=text,
            prompt_output=text,
            prompt_token_list=(text,),
            current_token=text,
            repeat_prompt=text,
            repeat_prompt_name=text,
            interpretation_text=text,
            interpretation_tokens=(text,),
            interpretation=(1,),
            interpretation_weights=(0.5,),
            interpretation_prob=(0.25,),
            answer=text,
            token_source="prompt",
            layer_idx=0,
            token_idx=0,
        )
        for number, (record, text) in enumerate(zip(itertools.cycle(RECORDS), HOSTILE))
    ]


# --- the page's data ---


def test_every_cell_travels_with_its_numbers_in_thousandths():
    data = data_of(page(RECORDS))
    cells = {
        (example["name"], reading["label"], cell[0], cell[1]): cell[2:]
        for example in data["examples"]
        for reading in example["readings"]
        for cell in reading["cells"]
    }
    assert len(cells) == len(RECORDS)
    for record in RECORDS:
        mean, texts, relevancy, probability, trust = cells[
            record.name, record.repeat_prompt_name, record.layer_idx, record.token_idx
        ]
        weights = record.interpretation_weights
        assert abs(mean / 1000 - sum(weights) / len(weights)) <= 0.0005
        assert "".join(texts) == record.interpretation_text
        assert relevancy == [round(1000 * weight) for weight in weights]
        assert probability == [round(1000 * number) for number in record.interpretation_prob]
        assert trust == round(1000 * record.trust)


def test_layers_come_from_the_last_to_the_first_and_only_computed_ones_are_there():
    kept = [record for record in RECORDS if record.layer_idx in (0, 2, 3) and record.token_idx != 1]
    for example in data_of(page(kept))["examples"]:
        assert example["layers"] == [3, 2, 0]
        assert [column[0] for column in example["columns"]] == [0, 2]


def test_a_cell_that_went_wrong_says_so_and_unknown_token_texts_leave_the_whole_text():
    first, second = replace(RECORDS[0], interpretation_tokens=()), failed(RECORDS[1])
    cells = data_of(page([first, second]))["examples"][0]["readings"][0]["cells"]
    assert cells[0][3] == first.interpretation_text
    assert cells[1] == [second.layer_idx, second.token_idx, "the embedding has NaN"]


def test_readings_of_one_prompt_at_two_insert_layers_are_told_apart():
    both = [*RECORDS[:3], *(replace(record, insert_layer=5) for record in RECORDS[:3])]
    labels = [reading["label"] for reading in data_of(page(both))["examples"][0]["readings"]]
    assert len(set(labels)) == 2
    assert "layer 1" in labels[0] and "layer 5" in labels[1]


def test_places_means_and_differences_are_told():
    tokens = ("Ġis", "Ġso", "mean(0:2)")

    def record(token, name, source):
        return replace(
            RECORDS[0], token_idx=token, current_token=name, token_source=source, prompt_token_list=tokens,
        )  # fmt: skip

    plain = [record(0, "Ġis", "prompt"), record(1, "Ġso", "output"), record(2, "mean(0:2)", "mean")]
    elsewhere = [replace(record, token_source=record.token_source + ", mlp_output") for record in plain]
    (example,) = data_of(page([*plain, *elsewhere]))["examples"]
    assert example["columns"] == [[0, "␣is", "prompt"], [1, "␣so", "output"], [2, "mean(0:2)", "mean"]]
    assert [reading["label"] for reading in example["readings"]] == ["describe", "describe · mlp output"]
    assert [len(reading["cells"]) for reading in example["readings"]] == [3, 3]
    differences = [record(0, "Ġis − Ġwas[4]", "difference"), record(2, "mean(0:2) − mean(0:5)", "difference")]
    (example,) = data_of(page(differences))["examples"]
    assert example["columns"] == [[0, "␣is − ␣was[4]", "difference"], [2, "mean(0:2) − mean(0:5)", "difference"]]
    text = shown(elsewhere, 100)
    assert "describe · mlp output, inserted at layer 1" in text
    assert "2 mean(0:2)" in text


def test_vectors_without_a_layer_are_one_row():
    vectors = [
        replace(record, layer_idx=None, token_idx=index, token_source="vector", current_token=f"joy − grief {index}")
        for index, record in enumerate(RECORDS[:3])
    ]
    (example,) = data_of(page(vectors))["examples"]
    assert example["layers"] == [None]
    assert [column[1] for column in example["columns"]] == ["joy − grief 0", "joy − grief 1", "joy − grief 2"]


def test_the_page_of_nothing_is_a_page():
    assert data_of(page([]))["examples"] == []


def test_ten_thousand_cells_stay_under_a_kilobyte_each():
    large = grid_records(examples=4, layers=50, tokens=50, length=30)
    assert len(large) == 10_000
    assert len(page(large).encode()) < 1000 * len(large)


# --- hostile strings ---


class Elements(HTMLParser):
    """Counts elements and collects attributes, as a browser would see them."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes.update(name for name, _ in attrs)


def elements(html):
    parser = Elements()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("view", [page, notebook_view])
def test_hostile_strings_add_no_element_and_no_handler(view):
    plain = [replace(record, name=f"n{number}") for number, record in enumerate(hostile_records())]
    for field in ("category", "prompt", "prompt_output", "current_token", "repeat_prompt", "answer"):
        plain = [replace(record, **{field: "harmless"}) for record in plain]
    plain = [replace(record, interpretation_text="harmless", repeat_prompt_name="harmless") for record in plain]
    hostile, harmless = elements(view(hostile_records())), elements(view(plain))
    assert hostile.names == harmless.names
    assert hostile.attributes == harmless.attributes
    assert not any(name.startswith("on") for name in hostile.attributes)


def test_hostile_strings_come_back_out_of_the_data_unchanged():
    html = page(hostile_records())
    texts = [example["readings"][0]["cells"][0][3][0] for example in data_of(html)["examples"]]
    assert texts == list(HOSTILE)
    begin = html.index('id="data">') + len('id="data">')
    raw = html[begin : html.index("</script", begin)]
    assert not set("<>&\u2028\u2029") & set(raw)
    assert raw.isascii()


def test_a_page_with_lone_surrogates_can_be_written(tmp_path):
    path = tmp_path / "page.html"
    write_page(hostile_records(), path, title="\ud800 title")
    assert "\ufffd title" in path.read_text(encoding="utf-8")


# --- strings ---


def test_byte_level_tokens_become_the_text_that_they_stand_for():
    assert readable_tokens(["The", "Ġcapital", "Ċ", "Ã©", "Ã"]) == ["The", " capital", "\n", "é", "Ã"]


def test_sentencepiece_tokens_become_the_text_that_they_stand_for():
    assert readable_tokens(["▁The", "<0x0A>", "<0xE6>", "s"]) == [" The", "\n", "<0xE6>", "s"]


def test_the_alphabet_is_told_from_the_whole_text():
    assert readable_tokens(["Ã©", "a"]) == ["Ã©", "a"]
    record = replace(RECORDS[0], current_token="Ã©", prompt_token_list=("Ã©", "Ġa"))
    assert examples_of([record])[0].columns[0].text == "é"


def test_what_cannot_be_seen_is_made_visible():
    assert visible(" is\n\tno\r") == "␣is⏎⇥no␍"
    assert visible("\u202eabc\x1b[31m\x00") == "⟨U+202E⟩abc⟨U+001B⟩[31m⟨U+0000⟩"
    assert encodable("a\ud800b") == "a\ufffdb"
    assert inert("two\nlines") == "two\nlines"


# --- answers ---


@pytest.mark.parametrize(
    ("text", "named"),
    [(" Tokyo: a city", True), ("the city of TOKYO.", True), (" Tokyoites", False), ("eTokyo", False), ("", False)],
)
def test_an_answer_counts_as_a_whole_word_only(text, named):
    assert names_answer(replace(RECORDS[0], interpretation_text=text, answer="Tokyo")) is named


def test_no_answer_is_never_named():
    assert not names_answer(replace(RECORDS[0], answer=None))
    assert not names_answer(replace(failed(RECORDS[0]), interpretation_text="Tokyo"))


def test_shares_by_layer_count_examples_not_cells():
    def record(name, layer, token, text, source="prompt", answer="Rome"):
        return replace(
            RECORDS[0], name=name, prompt=name, layer_idx=layer, token_idx=token, interpretation_text=text,
            token_source=source, answer=answer,
        )  # fmt: skip

    records = [
        record("a", 0, 0, "nothing"),
        record("a", 1, 0, "Rome"),
        record("a", 1, 1, "Rome again"),
        record("b", 0, 0, "nothing"),
        record("b", 0, 2, "Rome", source="output"),  # the model has said it: no evidence
        record("b", 1, 0, "Romeo"),
        record("c", 1, 0, "Rome", answer=None),
    ]
    assert answer_shares(records) == {"describe": {0: 0.0, 1: 0.5}}
    elsewhere = [replace(record, token_source=f"{record.token_source}, mlp_output") for record in records]
    assert answer_shares([*records, *elsewhere]) == {
        "describe": {0: 0.0, 1: 0.5},
        "describe · mlp output": {0: 0.0, 1: 0.5},
    }


# --- colours ---


@pytest.mark.parametrize("dark", [False, True])
def test_lightness_runs_one_way_and_text_stays_readable(dark):
    shades = [luminance(colour) for colour in ramp(dark=dark)]
    assert shades == sorted(shades, reverse=not dark)
    assert min(abs(a - b) for a, b in itertools.pairwise(shades)) > 0.002
    for colour in ramp(dark=dark):
        ground, text = luminance(colour), luminance(ink(colour))
        assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 4.5


def cielab(colour):
    """CIE 1976 L*a*b* of "#rrggbb" under D65: another space than the one that the ramp is made in."""
    linear = [((int(colour[n : n + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for n in (1, 3, 5)]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        (sum(weight * channel for weight, channel in zip(row, linear)) / full) ** (1 / 3)
        for row, full in zip(to_xyz, white)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("dark", [False, True])
def test_equal_steps_of_relevancy_look_equally_far_apart(dark):
    steps = [math.dist(cielab(a), cielab(b)) for a, b in itertools.pairwise(ramp(dark=dark))]
    assert min(steps) > 2  # can be told apart
    assert max(steps) < 3 * min(steps)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "seen",
    [  # Machado, Oliveira and Fernandes 2009: full protanopia, deuteranopia, tritanopia (linear RGB)
        ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
        ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    ],
)
def test_the_colour_blind_see_the_same_order(dark, seen):
    shades = []
    for colour in ramp(dark=dark):
        linear = [((int(colour[n : n + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for n in (1, 3, 5)]
        red, green, blue = (sum(weight * channel for weight, channel in zip(row, linear)) for row in seen)
        shades.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert shades == sorted(shades, reverse=not dark)


def test_the_scale_covers_the_largest_mean():
    means = [sum(record.interpretation_weights) / len(record.interpretation_weights) for record in RECORDS]
    scale = relevancy_scale(RECORDS)
    assert max(means) <= scale < max(means) + 0.1 + 1e-9
    assert step_of(0, scale) == 0
    assert step_of(scale, scale) == step_of(2, scale) == STEPS - 1


# --- terminal ---


def shown(records, width, **settings):
    file = io.StringIO()
    show(records, console=Console(file=file, width=width, force_terminal=False), **settings)
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 80, 137])
def test_the_terminal_view_keeps_within_the_width(width):
    lines = shown(grid_records(layers=5, tokens=9), width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    # Every token heads a column, every block has all layers, the last layer first.
    text = "\n".join(lines)
    for index in range(9):
        assert re.search(rf"(^|\s){index} ", text)
    layers = [int(line.split()[0]) for line in lines if re.match(r"\s*\d+ \.\d", line)]
    assert layers[:5] == [4, 3, 2, 1, 0]
    assert len(layers) % 5 == 0


def test_the_terminal_view_shows_the_named_example():
    text = shown(RECORDS, 100, example="fact_2")
    assert "fact_2" in text and "fact_1" not in text
    with pytest.raises(ValueError, match=r"no example 'nobody'; there are: fact_1, fact_2"):
        shown(RECORDS, 100, example="nobody")
    with pytest.raises(ValueError, match="no interpretations"):
        shown([], 100)


def test_the_terminal_view_hides_what_is_not_trusted():
    calibration = Calibration((0.0, 0.5), (0.1, 0.6), "made up")
    records = [RECORDS[0], failed(RECORDS[1]), *RECORDS[2:]]
    plain = shown(records, 4000, calibration=calibration)
    hiding = shown(records, 4000, calibration=calibration, min_trust=0.3)
    assert "·" not in plain and "trust below 0.3" in hiding
    first = [record for record in RECORDS if record.name == "fact_1" and record is not RECORDS[1]]
    assert hiding.count("·") - 1 == sum(calibration.trust(record.interpretation_weights) < 0.3 for record in first)
    assert hiding.count("the embedding has NaN") == 1


def test_the_page_offers_the_shares_of_the_calibration():
    calibration = Calibration((0.0, 0.2, 0.5), (0.02, 0.1, 0.625), "made <up>")
    html = page(RECORDS, calibration=calibration)
    assert re.findall(r'<option value="(\d+)"', html) == ["0", "100", "625"]
    assert "made &lt;up&gt;" in html
    trusts = {
        cell[6]
        for example in data_of(html)["examples"]
        for reading in example["readings"]
        for cell in reading["cells"]
    }
    assert trusts == {20, 100, 625}
    assert 'id="trust"' not in page(RECORDS, calibration=Calibration((0.0,), (0.1,), "one step: nothing to choose"))


def test_a_calibration_of_ones_own_reaches_page_and_terminal(tmp_path, capsys):
    Interpretations(RECORDS).to_csv(tmp_path / "x.csv")
    own = {"scores": [0.0, 0.6], "shares": [0.125, 0.875], "source": "my own model"}
    (tmp_path / "evaluation.json").write_text(json.dumps({"trust": {"calibration": own}}))
    arguments = [str(tmp_path / "x.csv"), "--calibration", str(tmp_path / "evaluation.json")]
    assert main(arguments) == 0
    html = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "my own model" in html and '<option value="875"' in html
    capsys.readouterr()
    assert main([*arguments, "--show", "--min-trust", "0.5"]) == 0
    text = capsys.readouterr().out
    assert text.count("·") > 1 and "trust below 0.5" in text


def test_hostile_strings_do_not_steer_the_terminal():
    for record in hostile_records():
        text = shown([record], 60)
        assert not set(text) & {"\x1b", "\u202e", "\u2028"}
        assert max(cell_len(line) for line in text.splitlines()) <= 60


def test_the_terminal_view_gives_question_marks_where_the_encoding_ends():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    show(RECORDS, console=Console(file=file, width=80))
    file.flush()
    assert b"capital" in raw.getvalue() and b"?" in raw.getvalue()


# --- figures ---


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
    for number, record in enumerate(hostile_records()):
        grid_figure([record]).savefig(tmp_path / f"{number}.svg")
        answers_figure([record]).savefig(tmp_path / f"{number}.pdf")


def test_without_answers_there_is_nothing_to_count():
    with pytest.raises(ValueError, match='no example has an "answer"'):
        answers_figure([replace(record, answer=None) for record in RECORDS])


# --- the command ---


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "interpretations.csv"
    Interpretations([*RECORDS[1:], failed(RECORDS[0])]).to_csv(path)
    return path


def test_the_command_writes_a_page_beside_the_csv(csv, capsys):
    assert main([str(csv)]) == 0
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    cells = [
        cell for example in data_of(html)["examples"] for reading in example["readings"] for cell in reading["cells"]
    ]
    assert len(cells) == len(RECORDS)
    assert capsys.readouterr().out == f"{len(RECORDS)} interpretations in {csv.with_suffix('.html')}\n"


def test_of_a_large_table_a_part_is_shown_and_said_to_be_one(csv, capsys):
    Interpretations(RECORDS).to_csv(csv)
    assert main([str(csv), "--cells", str(len(RECORDS) - 1)]) == 0
    told = capsys.readouterr().out.splitlines()
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    assert [example["name"] for example in data_of(html)["examples"]] == ["fact_1"]
    assert told[1].startswith("Shown are ") and told[1].endswith("interpretations.csv --examples 1:")
    assert f'<p class="sum part">{told[1]}</p>' in html
    assert main([str(csv), "--examples", "1:"]) == 0
    html = csv.with_suffix(".html").read_text(encoding="utf-8")
    assert [example["name"] for example in data_of(html)["examples"]] == ["fact_2"]
    assert main([str(csv)]) == 0
    assert 'class="sum part"' not in csv.with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_command_writes_what_it_is_asked_for(csv, tmp_path, capsys):
    figure, page_file = tmp_path / "grid.png", tmp_path / "other.html"
    assert main([str(csv), "--show", "fact_2", "--grid-figure", str(figure), "-o", str(page_file)]) == 0
    assert figure.exists() and page_file.exists()
    assert "fact_2" in capsys.readouterr().out
    assert main([str(csv), "--answers-figure", str(tmp_path / "answers.svg")]) == 0
    assert not csv.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "cannot read"),
        ("a,b\n1,2\n", [], "not a file of interpretations"),
        ("the header alone", [], "has no interpretations"),
        ("good", ["--show", "nobody"], "no example 'nobody'"),
        ("good", ["--examples", "x"], "no range of examples"),
        ("good", ["--examples", "9:"], "has no interpretations of such examples"),
        ("good", ["--cells", "0"], "cells is 0"),
        ("good", ["--calibration", "nowhere.json"], "nowhere.json"),
        ("good", ["--calibration", "x.csv"], "x.csv has no calibration"),
        ("good", ["-o", "no/such/folder/page.html"], "No such file or directory"),
        ("good", ["--grid-figure", "grid.nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, content, arguments, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.csv"
    if content in ("good", "the header alone"):
        Interpretations(RECORDS if content == "good" else []).to_csv(path)
    elif content:
        path.write_text(content)
    assert main([str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1


def test_the_report_imports_without_its_libraries_and_figures_say_what_to_install():
    code = (
        "import sys\n"
        "for name in ('jinja2', 'rich', 'matplotlib', 'matplotlib.figure', 'pandas'): sys.modules[name] = None\n"
        "from transformers.interpretation.report import grid_figure\n"
        "try: grid_figure([])\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "figures need matplotlib: pip install matplotlib"


def test_the_notebook_view_is_a_frame_and_a_table():
    html = notebook_view(RECORDS)
    assert Interpretations(RECORDS)._repr_html_() == html
    names = elements(html).names
    assert names.count("iframe") == 1 and "script" not in names
    assert str(len(RECORDS)) in html


def test_a_notebook_holds_whole_examples_of_a_large_result_and_says_so():
    large = grid_records(examples=5, layers=30, tokens=50, length=1)
    html = notebook_view(large)
    assert "7,500 interpretations of 5 examples, of which the first 2 are shown" in html
    assert html.count("fact_2") and not html.count("fact_3")
