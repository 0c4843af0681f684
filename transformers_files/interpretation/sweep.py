"""Every source layer into every target layer, as Patchscopes (Ghandeharioun et al. 2024) sweeps them.

records = sweep_layers(model, tokenizer, examples, layers="0:31:3", insert_layers="0:30:3", tokens="last")
sweep_figure(records).savefig("sweep.pdf")          # of transformers.interpretation.report
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .engine.settings import DEFAULT_PROMPT, DEFAULTS, InterpretationSettings
from .interpretations import Interpretations
from .mapping.affine import AnyMap
from .models.default_device import cpu_by_default
from .models.tokenizer import Tokenizer
from .prompts.examples import Example
from .prompts.index_selection import Selection
from .prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from .prompts.spec_files import find_spec
from .results.record import Record
from .runs.job import plan_job
from .runs.limits import Limits, PlanError
from .runs.source_model import SourceModel


@cpu_by_default
def sweep_layers(
    model: nn.Module,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    layers: str = "all",
    insert_layers: str = "all",
    tokens: str = "last",
    interpretation_prompt: str | InterpretationPrompt | InterpretationPromptSpec = DEFAULT_PROMPT,
    replacing_mode: str = DEFAULTS.replacing_mode,
    overlay_strength: float | Sequence[float] = DEFAULTS.overlay_strength,
    guidance: float = DEFAULTS.guidance,
    plausibility: float = DEFAULTS.plausibility,
    deep_gain: float = DEFAULTS.deep_gain,
    max_new_tokens: int = 8,
    batch_size: int | None = None,
    source_model: nn.Module | None = None,
    source_tokenizer: Tokenizer | None = None,
    mapping: AnyMap = None,
    progress: Callable[[int, int], None] | None = None,
) -> Interpretations:
    """Interpret the embeddings of some layers, inserted at each of some layers.

    Args:
        examples: what the source model reads; `read_examples` has them from a file.
        layers: of the n_layers + 1 hidden states of the source, in the command line's syntax.
        insert_layers: likewise, of the n_layers decoder layers of the model.
        tokens: positions in each example's prompt.
        progress: called after each insert layer with how many are done, and of how many.
        other arguments: as for `interpret`.

    Returns:
        one record per (insert layer, example, layer, token), in this order.

    Raises:
        ValueError: as for `interpret`, before any model work.
    """
    try:
        targets = Selection.of(insert_layers).resolve(Limits.of(model).n_layers, ends_after_norm=False)
    except ValueError as error:
        raise PlanError([f"insert_layers: {error}"]) from None
    prompt = find_spec(interpretation_prompt) if isinstance(interpretation_prompt, str) else interpretation_prompt
    how = replacing_mode, overlay_strength, max_new_tokens, guidance, plausibility, deep_gain
    records: list[Record] = []
    for number, target in enumerate(targets, start=1):
        job = plan_job(
            model,
            tokenizer,
            examples,
            [prompt],
            InterpretationSettings(target, *how),
            layers=Selection.of(layers),
            tokens=Selection.of(tokens),
            prompt_output_tokens=0,
            batch_size=batch_size,
            source_model=SourceModel.of(model, tokenizer, source_model, source_tokenizer, mapping),
        )
        batch_size = job.batch_size  # the same for all
        records += job.all_records()
        if progress is not None:
            progress(number, len(targets))
    return Interpretations(records)
