"""What a resumed run must share with the one that began, and what may differ."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..engine.kernels.switch import are_used
from ..models.loading import Outline
from ..prompts.interpretation_prompt import InterpretationPrompt
from .grid import Plan, Source
from .manifest import package_fingerprint
from .request import RunRequest
from .vector_plan import VectorPlan

if TYPE_CHECKING:
    from .checking import Checked
    from .preparation import Prepared


def identity_of(
    request: RunRequest,
    checked: Checked,
    outline: Outline,
    source: Outline | None,
    plan: Plan | VectorPlan,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """What tells one run from another; see `manifest`."""
    return {
        "model": outline.fingerprint,
        "source model": source and source.fingerprint,
        **_interpreted(request, checked, plan),
        "interpretation prompt": {_named(prompt): _digest(repr(prompt).encode()) for prompt in plan.prompts},
        "mapping": checked.maps and checked.maps.digest,
        "reader adapter": checked.adapter and checked.adapter.fingerprint,
        "reader": checked.reader and checked.reader.digest,
        **json.loads(json.dumps(asdict(checked.settings))),  # tuples as the lists that a manifest gives back
        "batch_size": request.batch_size or "auto",
        "dtype": str(dtype).removeprefix("torch."),
        "csv_safe": request.csv_safe,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "interpretation": package_fingerprint(),
        },
    }


def _interpreted(request: RunRequest, checked: Checked, plan: Plan | VectorPlan) -> dict[str, Any]:
    """What tells one run from another of what they interpret."""
    if isinstance(plan, VectorPlan):
        assert checked.vectors is not None
        file, rows = plan.file, plan.rows
        return {
            "vectors": file.digest,
            "vectors' content": file.what,
            "vectors' names": file.naming.digest,
            "rows": [rows.start, rows.stop],
            "strength": checked.vectors.strength,
            "layers": plan.layer,
        }
    assert checked.examples is not None
    return {
        "examples": checked.examples.digest,
        "examples as the model reads them": _sources_digest(plan.sources),
        "layers": checked.layers.text,
        "tokens": checked.tokens.text,
        "place": request.place,
        "prompt_output_tokens": request.prompt_output_tokens,
    }


def about(prepared: Prepared) -> dict[str, Any]:
    """What may differ when a run is resumed."""
    return {
        "model": prepared.outline.name,
        "source model": prepared.source and prepared.source.name,
        "examples": prepared.request.examples and str(prepared.request.examples),
        "vectors": prepared.request.vectors and str(prepared.request.vectors),
        "mapping": prepared.maps and str(prepared.maps.path),
        "reader adapter": prepared.adapter and prepared.adapter.name,
        "reader": prepared.request.reader,
        "device": where(prepared),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "MKL_CBWR": os.environ.get("MKL_CBWR"),
        **({} if are_used() else {"kernels": "torch's own"}),
    }


def where(prepared: Prepared) -> str:
    """The device, or the map of devices."""
    device_map = prepared.request.device_map
    return prepared.device if device_map is None else f"device map {device_map}"


def _named(prompt: InterpretationPrompt) -> str:
    return prompt.name if prompt.question is None else f"{prompt.name}: {prompt.question}"


def _sources_digest(sources: Sequence[Source]) -> str:
    """A digest of texts and token ids: a chat template may write the same example in another way on another day."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(repr((source.text, source.input_ids, source.minus and source.minus.input_ids)).encode())
    return digest.hexdigest()[:16]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
