"""The documents are true: their commands, links, tests, modules, and the output of the five lines of Python."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas
import pytest
from accelerate.commands.launch import launch_command_parser
from layers import LAYERS
from test_install_patch_kill import CAMPAIGNS

TREE = Path(__file__).resolve().parent.parent
PACKAGE = TREE / "transformers_files"
FRONT = TREE / "README.md"
DOCUMENTS = [FRONT, *sorted(TREE.glob("*/*.md"))]
PROGRAMS = ("python", "make", "pip", "accelerate", "sbatch")
MAIN = "scripts/get_interpretations_from_examples.py"
FRONT_LINES = 120


class Parsed(BaseException):
    """A program has read its command line; raised in place of what it would do then."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


# ---- what the documents hold


def blocks(text: str, language: str = "") -> list[str]:
    """Fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def code(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command shown, in blocks and within sentences; a program alone is a name, not a command."""
    lines = [line for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *code(text)]:
        with contextlib.suppress(ValueError):  # quotation marks that are no shell's
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\w+", words[0]):
                del words[0]
            if len(words) > 1 and words[0] in PROGRAMS and not words[1].startswith("to "):
                yield words


def anchors(document: Path) -> set[str]:
    """What a link can point to within a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def every(find) -> list:
    """One parameter for each thing found in a document, under the document's name."""
    found = [(document, item) for document in DOCUMENTS for item in find(document.read_text())]
    return [pytest.param(*pair, id=f"{pair[0].relative_to(TREE)}: {_title(pair[1])}") for pair in found]


def _title(item: str | list[str]) -> str:
    return item if isinstance(item, str) else shlex.join(item)


# ---- commands


def parser_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser | None:
    """Run a program up to where it has read its command line; None for one that reads none."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments, **options):
        parse_args(self, *arguments, **options)
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    module = words[1] if words[0] == "-m" else None
    for imported in (f"{module}.__main__", f"{module}"):  # by other tests
        if not hasattr(sys.modules.get(imported), "__path__"):
            monkeypatch.delitem(sys.modules, imported, raising=False)
    monkeypatch.setattr(sys, "argv", words[1:] if module else words)
    try:
        runpy.run_module(module, run_name="__main__") if module else runpy.run_path(words[0], run_name="__main__")
    except Parsed as parsed:
        return parsed.parser
    except SystemExit as end:
        assert not end.code, f"{shlex.join(words)}: exit status {end.code}"
    return None


@pytest.mark.parametrize(("document", "words"), every(commands))
def test_every_command_is_understood(document: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TREE)
    program, *rest = words
    if program == "make":
        subprocess.run(["make", "--dry-run", *rest], check=True, capture_output=True)
    elif program == "pip":
        assert all(Path(word).is_file() for flag, word in pairwise(rest) if flag in ("-r", "-c"))
    elif program == "sbatch":
        assert Path(rest[0]).is_file()
        assert parser_of([MAIN, *rest[1:]], monkeypatch)
    elif program == "accelerate":
        launched = launch_command_parser().parse_args(rest[1:])
        assert parser_of([launched.training_script, *launched.training_script_args], monkeypatch)
    elif rest[:2] == ["-m", "pytest"]:
        assert all(Path(path).exists() for path in rest[2:])
    elif rest[0].startswith("tests/"):
        assert Path(rest[0]).is_file()
    elif rest[0] != "-m" or rest[1] != "pip":
        parser = parser_of(rest, monkeypatch)
        assert parser or len(rest) == 1


def test_every_option_of_the_main_program_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TREE)
    parser = parser_of([MAIN], monkeypatch)
    options = {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
    described = set(re.findall(r"--[a-z-]+", " ".join(code((TREE / "scripts/README.md").read_text()))))
    assert options - described == set()


def test_every_program_is_described() -> None:
    described = set(code((TREE / "scripts/README.md").read_text()))
    programs = {f"scripts/{path.name}" for path in TREE.glob("scripts/*.py") if "__main__" in path.read_text()}
    assert programs and programs - described == set()


def test_the_quick_tests_touch_every_package() -> None:
    shown = subprocess.run(["make", "--dry-run", "test-quick"], cwd=TREE, check=True, capture_output=True, text=True)
    paths = re.findall(r"tests/\S+", shown.stdout.rpartition("-m pytest")[2])
    assert paths and [path for path in paths if not (TREE / path).exists()] == []
    assert set(LAYERS) <= {Path(path).parts[2] for path in paths if path.startswith("tests/interpretation/")}


# ---- links and names


def links(text: str) -> list[str]:
    """Targets of links and pictures that are not on the network."""
    found = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'<img src="([^"]+)"', text)]
    return [target for target in found if not target.startswith("https://")]


@pytest.mark.parametrize(("document", "target"), every(links))
def test_every_link_leads_somewhere(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    page = document.parent / path if path else document
    assert page.exists()
    assert not anchor or anchor in anchors(page)


def named_tests(text: str) -> list[str]:
    """Tests, alone or with their file, and campaigns."""
    kinds = "|".join(sorted({name.split()[0] for name in CAMPAIGNS}))
    return [word for word in code(text) if re.search(rf"(^|::)test_\w+$|^({kinds})( [\w-]+)?$", word)]


@pytest.fixture(scope="session")
def tests() -> dict[str, set[Path]]:
    """Every test's name → the files that have one of that name."""
    found: dict[str, set[Path]] = {}
    for path in TREE.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, set()).add(path)
    return found


@pytest.mark.parametrize(("document", "name"), every(named_tests))
def test_every_test_named_exists(tests: dict[str, set[Path]], document: Path, name: str) -> None:
    path, _, test = name.rpartition("::")
    assert name in CAMPAIGNS or test in tests
    assert not path or TREE / path in tests[test]


def named_places(text: str) -> list[str]:
    """Files and folders of the repository, and modules of the package."""
    roots = r"(interpretation|scripts|tests|constraints|transformers_files|engine|transformers)"
    return [
        word
        for word in code(text)
        if re.fullmatch(rf"{roots}(/[\w.-]+)+/?|transformers\.interpretation(\.[a-z]\w*)*", word)
    ]


@pytest.mark.parametrize(("document", "name"), every(named_places))
def test_every_file_and_module_named_exists(document: Path, name: str) -> None:
    if "/" not in name:
        assert importlib.util.find_spec(name)
    elif name.startswith("transformers/"):
        assert (PACKAGE / name.partition("/")[2]).exists()
    else:
        assert any((root / name).exists() for root in (TREE, PACKAGE, PACKAGE / "interpretation"))


def test_the_design_names_every_package_in_its_order() -> None:
    design = (PACKAGE / "README.md").read_text()
    packages = re.search(r"^## The packages\n(.*?)^## ", design, re.MULTILINE | re.DOTALL)[1]
    assert tuple(re.findall(r"^\| `(\w+)` \|", packages, re.MULTILINE)) == LAYERS


def test_every_name_of_a_table_of_changes_exists() -> None:
    """`FAMILIES` in `interpretation/models/families.py`: the module has it."""
    named = re.findall(r"`([A-Z_]+)` in `([\w/.]+)`", (PACKAGE / "README.md").read_text())
    assert named
    for name, path in named:
        source = next(root / path for root in (PACKAGE, TREE) if (root / path).is_file()).read_text()
        assert re.search(rf"^{name}\b", source, re.MULTILINE), f"{path} has no {name}"


# ---- the front page


def test_every_function_that_answers_a_question_is_where_it_says() -> None:
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Where it happens") : text.index("## Where to change it")]
    named = re.findall(r"`(\w+/\w+\.py)`: `(\w+)`(?:, `(\w+)`)?", section)
    assert len(named) >= 12
    for file, *names in named:
        parsed = ast.walk(ast.parse((PACKAGE / "interpretation" / file).read_text(encoding="utf-8")))
        defined = {node.name for node in parsed if isinstance(node, ast.FunctionDef)}
        assert defined >= {name for name in names if name}, file


def test_the_front_page_is_two_screens() -> None:
    text = FRONT.read_text()
    assert len(text.splitlines()) <= FRONT_LINES
    assert {"make demo", "make test"} <= {" ".join(words) for words in commands(text)}


def test_figures_of_the_front_page_are_those_of_the_measurements() -> None:
    figures = re.findall(r"\d+ % \[\d+, \d+\]", FRONT.read_text())
    measured = (TREE / "scripts/README.md").read_text()
    assert figures and [figure for figure in figures if figure not in measured] == []


def test_the_five_lines_print_what_is_shown(embedded_folder: Path) -> None:
    (python,) = blocks(FRONT.read_text(), "python")
    shown = next(block for block in blocks(FRONT.read_text()) if "interpretation_text" in block)
    with contextlib.redirect_stdout(io.StringIO()) as printed, pandas.option_context("display.width", 120):
        exec(python, {"name": str(embedded_folder)})
    assert printed.getvalue().splitlines() == shown.splitlines()
