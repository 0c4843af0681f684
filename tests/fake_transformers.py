"""A small package called transformers as pip installs it, and a small repository that patches it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

INSTALLER = Path(__file__).resolve().parent.parent / "install_patch.py"
INSTALLER_PACKAGE = INSTALLER.parent / "scripts" / "patch_installer"
VERSION = "4.57.6"
PACKAGE = {
    "transformers/__init__.py": "__version__ = '{version}'\n",
    "transformers/generation/__init__.py": "",
    "transformers/generation/utils.py": "LIBRARY = '{version}'",  # no newline at the end
    "transformers/models/__init__.py": "",
    "transformers/models/llama/__init__.py": "",
    "transformers/models/llama/modeling_llama.py": "LIBRARY = '{version}'\n",
}
MODIFIED = ("transformers/generation/utils.py", "transformers/models/llama/modeling_llama.py")
SELF_TEST = """
from transformers.generation.utils import LIBRARY, PATCH
from transformers.interpretation.core import NAME
assert PATCH == NAME == "{name}", "the self-test met another patch"
"""
STATE = "transformers-llm-interpret"
ADDED = "transformers/interpretation"
RECORD = f"transformers-{VERSION}.dist-info/RECORD"


def package_files(version: str = VERSION) -> dict[str, bytes]:
    """Path → content of what a wheel of the package holds, RECORD included."""
    info = f"transformers-{version}.dist-info"
    files = {path: text.format(version=version).encode() for path, text in PACKAGE.items()}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/top_level.txt"] = b"transformers\n"
    rows = [f"{path},{record_hash(content)},{len(content)}\n" for path, content in files.items()]
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    return files


def record_hash(content: bytes) -> str:
    """The hash column of RECORD."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files, with folders as needed."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def make_site(folder: Path, version: str = VERSION) -> Path:
    """A folder of installed packages."""
    return write_files(folder, package_files(version))


def make_wheel(folder: Path, version: str = VERSION) -> Path:
    """The package as pip installs it."""
    wheel = folder / f"transformers-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in package_files(version).items():
            archive.writestr(path, content)
    return wheel


def make_repository(folder: Path, name: str = "one", extra: str | None = None, version: str = "1.0.0") -> Path:
    """The installer beside a patch of that name and version; `extra` names one more added file."""
    files = {
        "generation/utils.py": f"from transformers.interpretation.core import NAME\n\nPATCH = '{name}'\n",
        "models/llama/modeling_llama.py": f"PATCH = '{name}'\n",
        "interpretation/__init__.py": f'__version__ = "{version}"\n',
        "interpretation/core.py": f"NAME = '{name}'\n",
        "interpretation/report/page.html.j2": f"<p>{name}</p>\n",
        "interpretation/self_test.py": SELF_TEST.format(name=name),
        "README.md": "Read me.\n",
        "CHANGELOG.md": "What is new.\n",
        **({extra: "\n"} if extra else {}),
    }
    write_files(folder / "transformers_files", {path: text.encode() for path, text in files.items()})
    shutil.copy2(INSTALLER, folder)
    package = folder / INSTALLER_PACKAGE.relative_to(INSTALLER.parent)
    shutil.copytree(INSTALLER_PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def snapshot(site: Path) -> dict[str, str]:
    """Path → hash of every file, and every folder; without bytecode."""
    found = {}
    for place in site.rglob("*"):
        path = place.relative_to(site).as_posix()
        if "__pycache__" not in place.parts:
            found[path] = "folder" if place.is_dir() else hashlib.sha256(place.read_bytes()).hexdigest()
    return found


class Result(NamedTuple):
    """What a run of the installer printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Bench:
    """A site and a repository, and the installer that brings them together."""

    site: Path
    repository: Path

    def load(self) -> ModuleType:
        """The repository's installer as a module, with modules of its own beside those of other repositories."""
        spec = importlib.util.spec_from_file_location("install_patch", self.repository / "install_patch.py")
        module = importlib.util.module_from_spec(spec)
        others = {name: loaded for name, loaded in sys.modules.items() if name.split(".")[0] != INSTALLER_PACKAGE.name}
        with (
            mock.patch.dict(sys.modules, {**others, "install_patch": module}, clear=True),
            mock.patch.object(sys, "path", list(sys.path)),
        ):
            spec.loader.exec_module(module)
        return module

    def run(self, *arguments: str) -> Result:
        """Run the installer in this process, as if it alone had started it; its self-test has its own process."""
        elsewhere = [entry for entry in sys.path if "site-packages" not in entry]
        unloaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] != "transformers"}
        with (
            mock.patch.dict(sys.modules, unloaded, clear=True),
            mock.patch.object(sys, "path", [str(self.site), *elsewhere]),
            mock.patch.dict(os.environ, {"PYTHONPATH": str(self.site)}),
            redirect_stdout(StringIO()) as output,
            redirect_stderr(StringIO()) as errors,
        ):
            returncode = self.load().main(arguments)
        return Result(returncode, output.getvalue(), errors.getvalue())

    def start(self, *arguments: str, **options) -> subprocess.Popen[str]:
        """Start the installer as a user does."""
        environment = {**os.environ, "PYTHONPATH": str(self.site), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(self.repository / "install_patch.py"), *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=environment, text=True, **pipes)


def install(bench: Bench) -> None:
    """Install, which must succeed."""
    done = bench.run("--yes")
    assert done.returncode == 0, done.stderr


def refused(done: Result) -> str:
    """The one line of an error."""
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("install_patch.py: error: "), done.stderr
    return done.stderr
