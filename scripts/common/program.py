"""How the programs start, and how they report errors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STOPPED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses other than 0."""


def run_program(
    parse: Callable[[Sequence[str]], argparse.Namespace],
    work: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """A program that writes its files at its very end; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        prepare_environment()
        return work(parse(list(sys.argv[1:] if argv is None else argv)))
    except ModuleNotFoundError as error:
        return fail(remedy_for(error), REFUSED)
    except KeyboardInterrupt:
        return fail("interrupted; nothing was written", INTERRUPTED)


def prepare_environment() -> None:
    """What has to be set before torch is imported, which some versions of transformers do at once."""
    # Intel's library then gives equal bits whatever the threads, the batch size and the alignment of memory.
    os.environ.setdefault("MKL_CBWR", f"{'AVX512' if has_avx512() else 'AVX2'},STRICT")
    # The default of newer torch: pickled weights may hold tensors, never code.
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")


def has_avx512() -> bool:
    """Whether the processor has it; False where that is unknown."""
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def embedded_model() -> str:
    """The folder of the embedded model."""
    from embedded_model import EmbeddedModelError, ensure_embedded_model
    from transformers.interpretation.runs.preparation import RequestError

    try:
        return str(ensure_embedded_model())
    except (EmbeddedModelError, OSError) as error:
        raise RequestError([str(error)]) from error


def files_of_models(*names: str | None) -> dict[str, Path]:
    """Those of the models that are folders, by what they are called."""
    from transformers.interpretation.models.fingerprint import model_files

    folders = [Path(name) for name in names if name is not None and Path(name).is_dir()]
    return {f"the model's {path}": path for folder in folders for path in model_files(folder)}


def check_files(outputs: Mapping[str, Path], inputs: Mapping[str, Path | None]) -> None:
    """Raise RequestError for a file that cannot be written, or that would be written over another."""
    from transformers.interpretation.runs.files import check_apart, check_writable
    from transformers.interpretation.runs.manifest import OutputError
    from transformers.interpretation.runs.preparation import RequestError

    try:
        for path in outputs.values():
            check_writable(path)
        check_apart(outputs, inputs)
    except OutputError as error:
        raise RequestError([str(error)]) from None


def fail(reason: str | Exception, status: int) -> int:
    """Print each problem on a line of its own."""
    for problem in getattr(reason, "problems", (str(reason),)):
        print(f"error: {problem}", file=sys.stderr)
    return status


def remedy_for(error: ModuleNotFoundError) -> str:
    """What to do about a module that is not there."""
    if (error.name or "").startswith("transformers."):
        return f"the installed transformers is not patched (no {error.name}); run: python install_patch.py"
    return f"the package {error.name} is not installed; run: python -m pip install -r requirements.txt"
