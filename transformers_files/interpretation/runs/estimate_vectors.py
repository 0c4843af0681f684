"""What a plan of vectors will cost; see `estimate`."""

from __future__ import annotations

import torch
from torch import nn

from ..engine.norm_search import NORMS
from ..engine.settings import InterpretationSettings
from ..models.flops import ModelSize, Work
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.csv_table import csv_rows
from .estimate import WorkEstimate, cells_by_prompt, estimate_cells, read, usual_record
from .vector_plan import VectorPlan
from .vectors import AUTO

_FACTOR = " × 12.3"


def estimate_vectors(
    plan: VectorPlan,
    settings: InterpretationSettings,
    model: nn.Module,
    *,
    strength: float | str,
    dtype: torch.dtype,
    batch_size: int,
) -> WorkEstimate:
    """What it takes to carry out a plan. model: with or without weights. strength: as for `VectorJob`."""
    strengths = Work()
    if strength == AUTO:
        for cells_of in cells_by_prompt(plan):
            strengths += sum((_trials(prompt, cells // plan.inseparable) for prompt, cells in cells_of.items()), Work())
    return estimate_cells(
        plan,
        settings,
        ModelSize.of(model),
        dtype=dtype,
        batch_size=batch_size,
        strengths=strengths,
        row_bytes=sum(_row_bytes(plan, prompt, settings, strength) for prompt in plan.prompts) * len(plan.rows),
    )


def _trials(prompt: InterpretationPrompt, vectors: int) -> Work:
    """For a chunk's vectors what is before the first placeholder, and the whole prompt, whose states say how large its
    own are; for each norm of each vector the rest, and one new token."""
    first, length = min(prompt.insert_locations), len(prompt.input_ids)
    once = read(first, logits=0) + read(length, logits=0)
    return once + (read(length - first, after=first) + read(1, after=length)) * (len(NORMS) * vectors)


def _row_bytes(
    plan: VectorPlan, prompt: InterpretationPrompt, settings: InterpretationSettings, strength: float | str
) -> int:
    """Of the rows of one vector, as if it were the last."""
    last = plan.rows[-1]
    (name,) = plan.file.names(last, last + 1)
    record = usual_record(
        prompt,
        settings,
        name=plan.block_name(last),
        category="vectors",
        prompt="",
        prompt_token_list=(),
        layer_idx=None,
        token_idx=last,
        current_token=name + (_FACTOR if strength == AUTO else ""),
        token_source="vector",
        sample=plan.samples and plan.samples - 1,
    )
    return len(csv_rows([record]).encode()) * plan.inseparable
