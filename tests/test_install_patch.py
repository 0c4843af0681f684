"""install_patch.py on a small package: every verb, and what it leaves behind."""

from __future__ import annotations

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_transformers import (
    ADDED,
    INSTALLER,
    INSTALLER_PACKAGE,
    MODIFIED,
    PACKAGE,
    RECORD,
    VERSION,
    Bench,
    install,
    make_repository,
    make_site,
    record_hash,
    refused,
    snapshot,
)
from transformers.interpretation import __version__

import install_patch

TREE = INSTALLER.parent / "transformers_files"


# ---- the four steps of a life


def test_status_install_status_install_restore(bench: Bench) -> None:
    pristine = snapshot(bench.site)
    assert "state: not patched" in bench.run("status").stdout
    assert snapshot(bench.site) == pristine
    assert "2 files modified, 4 added, self-test passed" in bench.run("install", "--yes").stdout
    patched = snapshot(bench.site)
    assert "state: patched: 2 files modified, 4 added" in bench.run("status").stdout
    times = {place: place.stat().st_mtime_ns for place in bench.site.rglob("*")}
    assert "nothing to do" in bench.run("--yes").stdout
    assert {place: place.stat().st_mtime_ns for place in bench.site.rglob("*")} == times
    assert snapshot(bench.site) == patched != pristine
    assert "as pip installed it" in bench.run("restore").stdout
    assert snapshot(bench.site) == pristine
    assert "nothing to do" in bench.run("restore").stdout
    assert snapshot(bench.site) == pristine


def test_modified_file_is_original_then_notice_then_text(bench: Bench) -> None:
    originals = {path: (bench.site / path).read_bytes() for path in MODIFIED}
    install(bench)
    for path, original in originals.items():
        text = (bench.repository / "transformers_files" / Path(path).relative_to("transformers")).read_bytes()
        content = (bench.site / path).read_bytes()
        assert content.startswith(original) and content.endswith(text)
        assert b"Apache License 2.0, section 4b" in content[len(original) : -len(text)]


def test_added_folder_is_a_copy(bench: Bench) -> None:
    install(bench)
    assert snapshot(bench.site / ADDED) == snapshot(bench.repository / "transformers_files/interpretation")


def test_record_is_true(bench: Bench) -> None:
    """Every file is listed, with the hash and size that it has."""
    install(bench)
    rows = {row[0]: row[1:] for row in csv.reader((bench.site / RECORD).read_text().splitlines())}
    files = [path for path, value in snapshot(bench.site).items() if value != "folder" and path != RECORD]
    assert set(rows) == {*files, RECORD}
    for path in files:
        content = (bench.site / path).read_bytes()
        assert rows[path] == [record_hash(content), str(len(content))], path


def test_permissions_are_kept(bench: Bench) -> None:
    (bench.site / MODIFIED[0]).chmod(0o640)
    bench.site.chmod(0o750)
    install(bench)
    assert (bench.site / MODIFIED[0]).stat().st_mode & 0o777 == 0o640
    assert (bench.site / ADDED).stat().st_mode & 0o777 == 0o750
    assert (bench.site / ADDED / "core.py").stat().st_mode & 0o777 == 0o640
    bench.run("restore")
    assert (bench.site / MODIFIED[0]).stat().st_mode & 0o777 == 0o640


def test_bytecode_of_the_patch_goes_with_it(bench: Bench) -> None:
    pristine = snapshot(bench.site)
    install(bench)
    code = "import transformers.generation.utils, transformers.interpretation.self_test"
    environment = {**os.environ, "PYTHONPATH": str(bench.site), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (bench.site / ADDED / "__pycache__").is_dir()
    bench.run("restore")
    assert snapshot(bench.site) == pristine


# ---- another version of the patch


def test_newer_patch_over_older(bench: Bench, tmp_path: Path) -> None:
    pristine = snapshot(bench.site)
    old = Bench(bench.site, make_repository(tmp_path / "old", "zero", extra="interpretation/gone.py"))
    install(old)
    assert "not as this copy would do it" in bench.run("status").stdout
    assert "different: transformers" in refused(bench.run("verify"))
    install(bench)
    updated = snapshot(bench.site)
    assert f"{ADDED}/gone.py" not in updated
    bench.run("restore")
    install(bench)
    assert snapshot(bench.site) == updated
    old.run("restore")
    assert snapshot(bench.site) == pristine


def test_file_that_the_newer_patch_no_longer_modifies(bench: Bench, tmp_path: Path) -> None:
    install(bench)
    newer = Bench(bench.site, make_repository(tmp_path / "newer"))
    (newer.repository / "transformers_files/models/llama/modeling_llama.py").unlink()
    install(newer)
    assert (bench.site / MODIFIED[1]).read_text() == PACKAGE[MODIFIED[1]].format(version=VERSION)
    assert "state: patched: 1 files" in newer.run("status").stdout


def test_failed_self_test_brings_the_older_patch_back(bench: Bench, tmp_path: Path) -> None:
    pristine = snapshot(bench.site)
    bad = Bench(bench.site, make_repository(tmp_path / "bad", "two", extra="interpretation/more.py"))
    (bad.repository / "transformers_files/interpretation/self_test.py").write_text("raise SystemExit('does not fit')")
    assert "the self-test failed: does not fit; everything is as it was before" in refused(bad.run("--yes"))
    assert snapshot(bench.site) == pristine
    install(bench)
    patched = snapshot(bench.site)
    refused(bad.run("--yes"))
    assert snapshot(bench.site) == patched


def test_status_names_the_versions_of_the_tree_and_of_what_is_installed(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("status").stdout.startswith("llm-interpret 1.0.0, not installed\n")
    install(bench)
    assert bench.run("status").stdout.startswith("llm-interpret 1.0.0, installed\n")
    newer = Bench(bench.site, make_repository(tmp_path / "newer", version="1.1.0"))
    assert newer.run("status").stdout.startswith("llm-interpret 1.1.0, installed: 1.0.0\n")
    install(newer)
    assert newer.run("status").stdout.startswith("llm-interpret 1.1.0, installed\n")


# ---- verify and render


def test_verify_tries_the_patch_on_a_copy(bench: Bench) -> None:
    pristine = snapshot(bench.site)
    assert "the patch fits" in bench.run("verify").stdout
    assert snapshot(bench.site) == pristine
    (bench.repository / "transformers_files/interpretation/core.py").write_text("NAME = 'wrong'")
    assert "the self-test met another patch" in refused(bench.run("verify"))
    assert snapshot(bench.site) == pristine


def test_verify_of_a_patched_package(bench: Bench) -> None:
    install(bench)
    patched = snapshot(bench.site)
    assert "every file is as it should be, self-test passed" in bench.run("verify").stdout
    assert snapshot(bench.site) == patched


def test_verify_of_an_untested_version(tmp_path: Path) -> None:
    bench = Bench(make_site(tmp_path / "site", "4.33.3"), make_repository(tmp_path / "repository"))
    assert "4.33.3 is older than the tested versions" in refused(bench.run("verify"))
    assert "the patch fits" in bench.run("verify", "--allow-untested").stdout
    assert "the patch fits" in bench.run("--allow-untested", "verify").stdout


@pytest.mark.parametrize("patched", [False, True])
def test_render(bench: Bench, tmp_path: Path, patched: bool) -> None:
    reference = Bench(make_site(tmp_path / "reference"), bench.repository)
    install(reference)
    if patched:
        install(bench)
    before = snapshot(bench.site)
    assert bench.run("render", str(tmp_path / "copy")).returncode == 0
    assert snapshot(bench.site) == before
    rendered = {path for path, value in snapshot(tmp_path / "copy").items() if value != "folder"}
    assert len(rendered) == 6
    for path in rendered:
        assert (tmp_path / "copy" / path).read_bytes() == (reference.site / "transformers" / path).read_bytes()
    assert "is not an empty folder" in refused(bench.run("render", str(tmp_path / "copy")))


# ---- versions


def test_version_older_than_the_tested_ones(tmp_path: Path) -> None:
    bench = Bench(make_site(tmp_path / "site", "4.33.9"), make_repository(tmp_path / "repository"))
    pristine = snapshot(bench.site)
    line = refused(bench.run("--yes"))
    assert "transformers 4.33.9 is older than the tested versions (4.34.0, 4.41.2" in line
    assert snapshot(bench.site) == pristine
    assert "(untested; tested: 4.34.0" in bench.run("status").stdout
    assert bench.run("--yes", "--allow-untested").returncode == 0


@pytest.mark.parametrize(
    ("version", "where"), [("4.50.0", "between"), ("6.1.0", "newer than"), ("6.0.0.dev0", "newer than")]
)
def test_other_untested_versions_are_left_to_the_self_test(tmp_path: Path, version: str, where: str) -> None:
    bench = Bench(make_site(tmp_path / "site", version), make_repository(tmp_path / "repository"))
    done = bench.run("--yes")
    assert done.returncode == 0 and f"{version} is {where} the tested versions" in done.stderr
    assert "(untested; tested: 4.34.0" in bench.run("status").stdout


# ---- the file itself, and the real tree


def test_documents_are_no_part_of_the_patch() -> None:
    patch = install_patch.Patch.read(TREE)
    assert set(patch.appended) == {*MODIFIED, "transformers/modeling_utils.py"}
    assert patch.added and all(path.startswith(f"{ADDED}/") for path in patch.added)


def test_the_changelog_begins_with_the_version() -> None:
    headings = re.findall(r"^## (\S+)", (TREE / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == install_patch.Patch.read(TREE).version == __version__


@pytest.mark.parametrize("place", [INSTALLER, *sorted(INSTALLER_PACKAGE.glob("*.py"))])
def test_installer_is_python_3_9(place: Path) -> None:
    ast.parse(place.read_text(), feature_version=(3, 9))


def test_installer_needs_nothing_but_the_standard_library(bench: Bench, tmp_path: Path) -> None:
    """From any folder, without a package installed but the one to patch."""
    command = [sys.executable, "-I", "-S", str(bench.repository / "install_patch.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage: install_patch.py")


def test_modules_of_the_installer_import_only_those_before_them() -> None:
    order = re.search(r"messages < [\w <]+", (INSTALLER_PACKAGE / "__init__.py").read_text())[0].split(" < ")
    assert {f"{name}.py" for name in order} == {place.name for place in INSTALLER_PACKAGE.glob("[!_]*.py")}
    for number, name in enumerate(order):
        tree = ast.parse((INSTALLER_PACKAGE / f"{name}.py").read_text())
        near = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        named = {part for node in near for part in ([node.module] if node.module else [n.name for n in node.names])}
        assert named <= set(order[:number])


def test_installer_imports_neither_torch_nor_transformers() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(INSTALLER.parent)!r})
import install_patch
install_patch.find_package()
assert not {{'torch', 'transformers'}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "place", [place for place in TREE.rglob("*.py") if place.relative_to(TREE).parts[0] != "interpretation"]
)
def test_text_added_to_a_library_file(place: Path) -> None:
    """Newer versions read `__all__` out of the text, and the last such line wins."""
    assert not [line for line in place.read_text().splitlines() if line.startswith("__all__")]
