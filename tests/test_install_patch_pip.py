"""install_patch.py and pip, each undoing what the other did; and with the installed transformers itself."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
import transformers
from fake_transformers import (
    ADDED,
    INSTALLER,
    RECORD,
    STATE,
    VERSION,
    make_repository,
    make_site,
    make_wheel,
    record_hash,
    snapshot,
)

INSTALLED = Path(transformers.__file__).resolve().parent.parent
REAL = f"transformers-{transformers.__version__}.dist-info"


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own that sees the packages of this one after its own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Environment:
        """Make an empty one."""
        venv.create(folder, symlinks=True)
        environment = cls(folder)
        (environment.site / "below.pth").write_text(f"{INSTALLED}\n")
        return environment

    @property
    def site(self) -> Path:
        """Its folder of packages."""
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run its interpreter."""
        command = [str(self.folder / "bin/python"), *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder)

    def succeed(self, *arguments: str | Path) -> str:
        """Run its interpreter, which must succeed; what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pip(self, *arguments: str | Path) -> None:
        """Run pip without network."""
        self.succeed("-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """With the small transformers in it."""
    environment = Environment.make(tmp_path / "environment")
    make_site(environment.site)
    return environment


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository") / "install_patch.py"


def contents(environment: Environment) -> dict[str, str]:
    """All files but pip's own notes on the package, which say where it came from."""
    return {path: value for path, value in snapshot(environment.site).items() if ".dist-info" not in path}


def left_behind(environment: Environment) -> list[Path]:
    """What there is of the package or the patch."""
    return list(environment.site.glob("*transformers*"))


def test_no_question_inside_a_virtual_environment(environment: Environment, installer: Path) -> None:
    assert "is patched: 2 files modified" in environment.succeed(installer)


def test_uninstall_removes_every_added_file(environment: Environment, installer: Path) -> None:
    environment.succeed(installer)
    environment.succeed("-c", "import transformers.generation.utils, transformers.interpretation.core")
    assert (environment.site / ADDED / "__pycache__").is_dir()
    environment.pip("uninstall", "--yes", "transformers")
    assert left_behind(environment) == []


def test_force_reinstall(environment: Environment, installer: Path, tmp_path: Path) -> None:
    pristine = contents(environment)
    environment.succeed(installer)
    patched = contents(environment)
    environment.pip("install", "--no-index", "--force-reinstall", "--no-deps", make_wheel(tmp_path))
    assert contents(environment) == pristine
    assert "state: not patched" in environment.succeed(installer, "status")
    assert "nothing to do" in environment.succeed(installer, "restore")
    environment.succeed(installer)
    assert contents(environment).keys() == patched.keys()
    environment.succeed(installer, "restore")
    assert contents(environment) == pristine


def test_upgrade(environment: Environment, installer: Path, tmp_path: Path) -> None:
    environment.succeed(installer)
    environment.pip("install", "--no-index", "--upgrade", "--no-deps", make_wheel(tmp_path, "5.0.0"))
    pristine = snapshot(environment.site)
    status = environment.succeed(installer, "status")
    assert "transformers 5.0.0" in status and "state: not patched" in status
    environment.succeed(installer)
    environment.succeed(installer, "restore")
    assert snapshot(environment.site) == pristine


@pytest.mark.parametrize("verb", ["install", "restore", "status"])
def test_package_replaced_by_something_that_does_not_read_record(
    environment: Environment, installer: Path, tmp_path: Path, verb: str
) -> None:
    """The patch's files are still there, and RECORD knows nothing of them."""
    pristine = snapshot(environment.site)
    environment.succeed(installer)
    patched = snapshot(environment.site)
    shutil.unpack_archive(make_wheel(tmp_path), environment.site, "zip")
    (environment.site / RECORD).write_bytes((environment.site / STATE / f"backup/{RECORD}.orig").read_bytes())
    output = environment.succeed(installer, verb)
    if verb == "status":
        assert "pip replaced the package" in output
    else:
        assert snapshot(environment.site) == (patched if verb == "install" else pristine)


def test_package_removed_by_something_that_does_not_read_record(environment: Environment, installer: Path) -> None:
    environment.succeed(installer)
    shutil.rmtree(environment.site / f"transformers-{VERSION}.dist-info")
    for place in environment.site.glob("transformers/[!i]*"):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    (environment.site / "below.pth").unlink()
    error = environment.run(installer, "status").stderr
    assert "only the left-over folder" in error and "`python install_patch.py restore` removes what is left" in error
    assert "what was left of the patch is removed" in environment.succeed(installer, "restore")
    assert left_behind(environment) == []


@pytest.mark.parametrize("then", ["uninstall", "force-reinstall"])
def test_pip_after_a_killed_install(environment: Environment, installer: Path, tmp_path: Path, then: str) -> None:
    """Killed in the self-test: everything is there, and the journal with it."""
    pristine = contents(environment)
    self_test = installer.parent / "transformers_files/interpretation/self_test.py"
    self_test.write_text("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    assert environment.run(installer).returncode < 0
    assert (environment.site / STATE / "journal.json").exists()
    if then == "uninstall":
        environment.pip("uninstall", "--yes", "transformers")
        (environment.site / "below.pth").unlink()
        assert "no transformers is installed" in environment.run(installer, "status").stderr
        assert left_behind(environment) == []
    else:
        environment.pip("install", "--no-index", "--force-reinstall", "--no-deps", make_wheel(tmp_path))
        assert "state: not patched" in environment.succeed(installer, "status")
        assert contents(environment) == pristine


# ---- the transformers that all other tests use, in copies; hard links do: nothing ever writes into a file in place


def link_or_copy(source: str, target: str) -> None:
    """A hard link, unless the target is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def copy(tmp_path: Path) -> Environment:
    """An environment with a copy of it, patched as it is."""
    environment = Environment.make(tmp_path / "environment")
    for name in ("transformers", REAL, STATE):
        shutil.copytree(INSTALLED / name, environment.site / name, copy_function=link_or_copy)
    return environment


def test_installed_transformers(copy: Environment) -> None:
    copy.succeed(INSTALLER, "restore")
    pristine = snapshot(copy.site)
    assert_as_recorded(copy)
    assert "(tested)\nstate: not patched" in copy.succeed(INSTALLER, "status")
    assert "the patch fits it" in copy.succeed(INSTALLER, "verify")
    assert snapshot(copy.site) == pristine

    copy.succeed(INSTALLER, "install")
    patched = snapshot(copy.site)
    assert "(tested)\nstate: patched: 3 files modified" in copy.succeed(INSTALLER, "status")
    assert "nothing to do" in copy.succeed(INSTALLER)
    assert snapshot(copy.site) == patched
    code = "from transformers import LlamaForCausalLM; print(hasattr(LlamaForCausalLM, 'forward_interpret'))"
    assert copy.succeed("-c", code) == "True\n"

    copy.succeed(INSTALLER, "restore")
    assert snapshot(copy.site) == pristine
    assert copy.succeed("-c", code) == "False\n"


def test_uninstall_of_the_installed_transformers(copy: Environment) -> None:
    copy.pip("uninstall", "--yes", "transformers")
    assert left_behind(copy) == []


def assert_as_recorded(environment: Environment) -> None:
    """Every file has the hash that RECORD gives."""
    wrong = []
    for path, recorded, *_ in csv.reader((environment.site / REAL / "RECORD").read_text().splitlines()):
        if recorded and not path.startswith(".."):
            content = (environment.site / path).read_bytes()
            wrong += [path] if record_hash(content) != recorded else []
    assert wrong == []
