"""install_patch.py on a small package: every verb, and everything it must refuse."""

from __future__ import annotations

import ast
import csv
import fcntl
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_transformers import (
    INSTALLER,
    MODIFIED,
    PACKAGE,
    STATE,
    VERSION,
    Bench,
    Result,
    make_repository,
    make_site,
    record_hash,
    snapshot,
)

TREE = INSTALLER.parent / "transformers_files"
ADDED = "transformers/interpretation"
RECORD = f"transformers-{VERSION}.dist-info/RECORD"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(make_site(tmp_path / "site"), make_repository(tmp_path / "repository"))


def install(bench: Bench) -> None:
    done = bench.run("--yes")
    assert done.returncode == 0, done.stderr


def refused(done: Result) -> str:
    """The one line of an error."""
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("install_patch.py: error: "), done.stderr
    return done.stderr


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
    bench = Bench(make_site(tmp_path / "site", "6.1.0"), make_repository(tmp_path / "repository"))
    assert "6.1.0 is outside the tested range" in refused(bench.run("verify"))
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


@pytest.mark.parametrize("version", ["4.33.9", "5.24.0", "6.0.0.dev0"])
def test_version_outside_the_range(tmp_path: Path, version: str) -> None:
    bench = Bench(make_site(tmp_path / "site", version), make_repository(tmp_path / "repository"))
    pristine = snapshot(bench.site)
    line = refused(bench.run("--yes"))
    assert f"transformers {version} is outside the tested range" in line and "4.34.0, 4.41.2" in line
    assert snapshot(bench.site) == pristine
    assert "not tested; tested: 4.34.0" in bench.run("status").stdout
    assert bench.run("--yes", "--allow-untested").returncode == 0


def test_version_between_the_tested_ones(tmp_path: Path) -> None:
    bench = Bench(make_site(tmp_path / "site", "4.50.0"), make_repository(tmp_path / "repository"))
    done = bench.run("--yes")
    assert done.returncode == 0 and "4.50.0 lies between the tested versions" in done.stderr


# ---- files that are not ours


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", [*MODIFIED, f"{ADDED}/core.py", f"{ADDED}/notes.txt"])
def test_files_changed_by_somebody_else(bench: Bench, path: str, when: str) -> None:
    if when == "after":
        install(bench)
    (bench.site / path).parent.mkdir(exist_ok=True)
    (bench.site / path).write_text("theirs")
    before = snapshot(bench.site)
    for verb in ("install", "restore", "verify"):
        line = refused(bench.run(verb, "--yes"))
        assert path in line and "pip install --force-reinstall" in line
        assert snapshot(bench.site) == before
    assert f"changed by somebody else: {path}" in bench.run("status").stdout
    assert snapshot(bench.site) == before


def test_record_changed_by_somebody_else(bench: Bench) -> None:
    install(bench)
    with open(bench.site / RECORD, "a") as record:
        record.write("transformers/more.py,,\n")
    assert RECORD in refused(bench.run("restore"))


@pytest.mark.parametrize("path", [MODIFIED[0], f"{ADDED}/core.py", f"{ADDED}/report/page.html.j2"])
def test_missing_files_come_back(bench: Bench, path: str) -> None:
    """Nothing of anybody is lost by writing a file that was deleted."""
    pristine = snapshot(bench.site)
    install(bench)
    patched = snapshot(bench.site)
    (bench.site / path).unlink()
    install(bench)
    assert snapshot(bench.site) == patched
    (bench.site / path).unlink()
    bench.run("restore")
    assert snapshot(bench.site) == pristine


def test_lost_backups(bench: Bench) -> None:
    install(bench)
    shutil.rmtree(bench.site / STATE)
    patched = snapshot(bench.site)
    for verb in ("install", "restore", "status"):
        assert "pip install --force-reinstall --no-deps transformers==4.57.6" in refused(bench.run(verb, "--yes"))
    assert snapshot(bench.site) == patched


@pytest.mark.parametrize("name", ["patch.json", "journal.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"modified": {}}'])
def test_damaged_notes(bench: Bench, name: str, text: str) -> None:
    install(bench)
    (bench.site / STATE / name).write_text(text)
    before = snapshot(bench.site)
    for verb in ("install", "restore", "status"):
        assert f"{name} is damaged; remove {bench.site / STATE} and run: python -m pip" in refused(bench.run(verb))
    assert snapshot(bench.site) == before


@pytest.mark.parametrize("path", ["transformers/generation", MODIFIED[0], "transformers", ADDED, STATE])
def test_no_symbolic_link_is_followed(bench: Bench, tmp_path: Path, path: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    place = bench.site / path
    if place.exists():
        shutil.move(place, elsewhere)
    else:
        elsewhere.mkdir()
    place.symlink_to(elsewhere)
    before = snapshot(tmp_path)
    assert f"{place} is a symbolic link" in refused(bench.run("--yes"))
    assert snapshot(tmp_path) == before


def test_backup_cannot_lead_out_of_the_package(bench: Bench, tmp_path: Path) -> None:
    install(bench)
    manifest = bench.site / STATE / "patch.json"
    manifest.write_text(manifest.read_text().replace(f"{ADDED}/core.py", "../outside.py"))
    (tmp_path / "outside.py").write_text("theirs")
    assert "leads out of" in refused(bench.run("restore"))
    assert (tmp_path / "outside.py").read_text() == "theirs"


@pytest.mark.parametrize("path", ["", "transformers/generation", MODIFIED[1]])
def test_place_that_everyone_can_write_to_is_named(bench: Bench, path: str) -> None:
    place = bench.site / path
    place.chmod(place.stat().st_mode | 0o002)
    for verb in ("status", "verify", "install", "status", "restore"):
        done = bench.run(verb, "--yes")
        assert done.returncode == 0
        assert f"warning: everyone on this machine can change {place}; remedy: chmod o-w {place}" in done.stderr


@pytest.mark.parametrize("path", ["", "transformers"])
def test_added_files_are_never_open_to_everyone(bench: Bench, path: str) -> None:
    (bench.site / path).chmod(0o777)
    install(bench)
    added = [*(bench.site / ADDED).rglob("*"), *(bench.site / STATE).rglob("*")]
    assert len(added) > 10
    assert [place for place in added if place.stat().st_mode & 0o002] == []


# ---- what cannot be patched


def test_no_transformers(bench: Bench) -> None:
    (bench.site / "transformers").rename(bench.site / "other")
    shutil.rmtree(bench.site / f"transformers-{VERSION}.dist-info")
    assert "no transformers is installed" in refused(bench.run("--yes"))


def test_left_over_folder_without_a_package(bench: Bench) -> None:
    (bench.site / "transformers/__init__.py").unlink()
    line = refused(bench.run("--yes"))
    assert f"only the left-over folder {bench.site / 'transformers'}" in line


def test_package_in_a_zip_file(bench: Bench, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", bench.site)
    assert "lies in a zip file" in refused(Bench(Path(archive), bench.repository).run("--yes"))


def test_editable_install(bench: Bench) -> None:
    url = bench.site / f"transformers-{VERSION}.dist-info/direct_url.json"
    url.write_text('{"url": "file:///home/me/transformers", "dir_info": {"editable": true}}')
    assert "is an editable install" in refused(bench.run("--yes"))


def test_source_tree_before_the_installed_package(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(bench.site / "transformers", tmp_path / "checkout/transformers")
    monkeypatch.setattr(sys, "path", [str(bench.site), *sys.path])
    assert "is not what pip installed" in refused(Bench(tmp_path / "checkout", bench.repository).run("--yes"))


def test_package_without_the_file_to_modify(bench: Bench) -> None:
    (bench.site / MODIFIED[0]).unlink()
    assert f"has no {MODIFIED[0]}: the patch does not fit" in refused(bench.run("--yes"))


def test_installer_without_its_tree(bench: Bench) -> None:
    shutil.rmtree(bench.repository / "transformers_files")
    assert "complete copy of its repository" in refused(bench.run("--yes"))


# ---- asking


def test_without_a_terminal_and_without_yes(bench: Bench) -> None:
    pristine = snapshot(bench.site)
    assert "is not in a virtual environment and there is no terminal to ask: say --yes" in refused(bench.run())
    assert snapshot(bench.site) == pristine


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_question_on_a_terminal(bench: Bench, answer: str, status: int) -> None:
    keyboard, terminal = pty.openpty()
    os.write(keyboard, answer.encode())
    process = bench.start(stdin=terminal)
    output, _ = process.communicate(timeout=60)
    os.close(keyboard)
    os.close(terminal)
    assert "Patch it all the same? [y/N]" in output and process.returncode == status
    assert (bench.site / ADDED).exists() == (status == 0)


# ---- the command line


@pytest.mark.parametrize("arguments", [["render"], ["status", "folder"], ["uninstall"], ["--force"]])
def test_wrong_command_line(bench: Bench, arguments: list[str]) -> None:
    pristine = snapshot(bench.site)
    with pytest.raises(SystemExit) as end:
        bench.run(*arguments)
    assert end.value.code == 2
    assert snapshot(bench.site) == pristine


# ---- two at once


def test_several_installers_at_once(bench: Bench, tmp_path: Path) -> None:
    together = [bench.start("--yes") for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0]
    assert ["nothing to do" in output for output in outputs].count(False) == 1
    reference = Bench(make_site(tmp_path / "reference"), bench.repository)
    install(reference)
    assert snapshot(bench.site) == snapshot(reference.site)


@pytest.mark.parametrize("verb", ["install", "restore"])
def test_second_installer_waits(bench: Bench, verb: str) -> None:
    (bench.site / STATE).mkdir()
    with open(bench.site / STATE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = bench.start(verb, "--yes")
        assert "another install_patch.py is at work" in second.stderr.readline()
        time.sleep(0.2)
        assert second.poll() is None and not (bench.site / ADDED).exists()
    assert second.communicate(timeout=60) is not None and second.returncode == 0


# ---- the file itself, and the real tree


def test_installer_is_python_3_9() -> None:
    ast.parse(INSTALLER.read_text(), feature_version=(3, 9))


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
