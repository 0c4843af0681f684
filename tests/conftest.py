"""Fixtures that every test may use, and the check that the installed patch is the one in this tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import transformers
from fake_transformers import Bench, make_repository, make_site
from packaging.version import Version
from patch_installer.package import TESTED
from patch_installer.patch import DOCUMENTS

TREE = Path(__file__).resolve().parent.parent
DEVELOPMENT = "LLM_INTERPRET_DEV"
# Page and notebook are the same whatever transformers is installed: one version's browser and kernel are enough.
# LongRoPE came with Phi-3.
MAJOR = int(transformers.__version__.split(".")[0])
collect_ignore_glob = (
    []
    if MAJOR >= 5
    else [
        "interpretation/report/test_browser*.py",
        "interpretation/explorer/browser/*",
        "scripts/test_notebook.py",
        *([] if hasattr(transformers, "Phi3ForCausalLM") else ["interpretation/models/test_rope.py"]),
    ]
)


def pytest_configure(config: pytest.Config) -> None:
    """What the newest version deprecates will stop working, so it is an error; older versions no longer change."""
    if Version(transformers.__version__) >= Version(TESTED[-1]):
        for category in ("FutureWarning", "DeprecationWarning"):
            config.addinivalue_line("filterwarnings", f"error:.*is deprecated and will be removed in v:{category}")
        config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated")  # read by peft


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to test installed files that differ from the tree: their results would say nothing about it."""
    if os.environ.get(DEVELOPMENT):
        return
    installed = Path(transformers.__file__).parent
    stale = []
    for source in (TREE / "transformers_files").rglob("*"):
        relative = source.relative_to(TREE / "transformers_files")
        if not source.is_file() or "__pycache__" in source.parts or relative.as_posix() in DOCUMENTS:
            continue
        target = installed / relative
        content = target.read_bytes() if target.is_file() else b""
        added = relative.parts[0] == "interpretation"
        if content != source.read_bytes() if added else not content.endswith(source.read_bytes()):
            stale.append(str(relative))
    if stale:
        pytest.exit(f"installed files differ from the tree: {', '.join(stale)}; run: python install_patch.py", 2)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A small package called transformers, and the installer beside a small patch of it."""
    return Bench(make_site(tmp_path / "site"), make_repository(tmp_path / "repository"))


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The folder of the embedded model, made at the first use."""
    from embedded_model import ensure_embedded_model

    return ensure_embedded_model()


@pytest.fixture(scope="session")
def embedded_tokenizer(embedded_folder: Path):
    """The embedded model's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(embedded_folder)


@pytest.fixture(scope="session")
def embedded_model(embedded_folder: Path):
    """The embedded model in float32, in evaluation mode."""
    import torch

    return transformers.AutoModelForCausalLM.from_pretrained(embedded_folder, torch_dtype=torch.float32).eval()
