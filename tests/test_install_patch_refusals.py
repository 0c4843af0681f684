"""install_patch.py on a small package: all that it must refuse, ask about or wait for."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import sys
import time
from pathlib import Path

import pytest
from fake_transformers import (
    ADDED,
    MODIFIED,
    RECORD,
    STATE,
    VERSION,
    Bench,
    install,
    make_site,
    refused,
    snapshot,
)

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


@pytest.mark.parametrize("row", [f"{MODIFIED[0]},,\n", ""])
def test_a_record_without_hashes(bench: Bench, row: str) -> None:
    """As other package managers than pip leave it: nobody has changed anything, but nothing tells."""
    lines = (bench.site / RECORD).read_text().splitlines(keepends=True)
    changed = [row if line.startswith(f"{MODIFIED[0]},") else line for line in lines]
    (bench.site / RECORD).write_text("".join(changed))
    before = snapshot(bench.site)
    line = refused(bench.run("install", "--yes"))
    assert (
        f"{RECORD} has no hash of {MODIFIED[0]}, so nothing tells" in line and "pip install --force-reinstall" in line
    )
    assert "changed by somebody else" not in line
    assert snapshot(bench.site) == before


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


def test_installer_without_its_modules(bench: Bench) -> None:
    shutil.rmtree(bench.repository / "scripts")
    process = bench.start("--yes")
    _, errors = process.communicate(timeout=60)
    assert (
        process.returncode == 2
        and "complete copy of its repository: scripts/ is missing" in errors
        and errors.count("\n") == 1
    )


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
