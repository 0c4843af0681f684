"""Examples, interpretation prompts and settings → a plan, checked against the model before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from ..engine.settings import InterpretationSettings
from ..models.chat_template import ChatTemplateError, read_prompt
from ..models.layer_spec import SAME
from ..models.places import FINAL_NORM, RESIDUAL
from ..models.tokenizer import Tokenizer
from ..prompts.examples import Example
from ..prompts.index_selection import Selection
from ..prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from ..results.record import MINUS
from .grid import Plan, Source, Subtrahend
from .limits import Limits, PlanError
from .source_model import SourceModel


def make_plan(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    *,
    layers: Selection,
    tokens: Selection,
    prompt_output_tokens: int,
    chunk_cells: int,
    hook_point: str = RESIDUAL,
    source_model: SourceModel | None = None,
    now: datetime | None = None,
) -> Plan:
    """Check everything against the model's limits and its tokenizer, and plan the work.

    `tokens` "all" means those of the prompts and of their generated outputs; anything else selects among the prompts'.
    Of differences the prompts' tokens alone are taken, each of its parts in both prompts.
    source_model: what reads the examples, where it is another model; with or without weights.
    now: the time that chat templates see; None: the present, the same for all.
    Raises PlanError with all problems.
    """
    now = datetime.now() if now is None else now
    source_tokenizer = tokenizer if source_model is None else source_model.tokenizer
    source_limits = limits if source_model is None else Limits.of(source_model.model)
    problems: list[str] = []
    if prompt_output_tokens < 0:
        problems.append(f"prompt_output_tokens is {prompt_output_tokens}: it cannot be less than 0")
    for name, times in Counter(example.name for example in examples).items():
        if times > 1:
            problems.append(f'{times} examples are named "{name}"; their rows could not be distinguished')
    chosen: tuple[int, ...] = ()
    try:
        residual = hook_point == RESIDUAL
        if layers.has_names and not residual:
            raise ValueError(f"names of layers are of the residual stream, and place is {hook_point}; give indices")
        chosen = layers.resolve(source_limits.n_layers + residual, ends_after_norm=residual)
    except ValueError as error:
        problems.append(f"layers: {error}")
    if settings.insert_layer == SAME and chosen and chosen[-1] >= limits.n_layers:
        problems.append(
            f"insert layer {SAME}: hidden state {chosen[-1]} comes after the last decoder layer, so it is no layer's "
            f'input; choose among layers ":{limits.n_layers}"'
        )
    built = _build(tokenizer, prompts, limits, settings, problems, now)
    sources = tuple(
        _source(source_tokenizer, example, tokens, prompt_output_tokens, source_limits, problems, now)
        for example in examples
    )
    lengths = sorted(frozenset().union(*(source.segment_lengths for source in sources)))
    segment_prompts = {
        length: _build(tokenizer, prompts, limits, settings, problems, now, vectors=length) for length in lengths
    }
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    samples = None if settings.sampling is None else settings.sampling.samples
    return Plan(
        sources,
        built,
        chosen,
        prompt_output_tokens,
        chunk_cells,
        hook_point,
        samples=samples,
        segment_prompts=segment_prompts,
    )


def build_prompts(
    tokenizer: Tokenizer,
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    *,
    vectors: int | None = None,
    now: datetime | None = None,
) -> tuple[InterpretationPrompt, ...]:
    """The interpretation prompts in this tokenizer's tokens, for vectors. Raises PlanError with all problems.

    vectors: how many each cell has, one per placeholder; None: one for all placeholders. now: the time that chat
    templates see; None: the present.
    """
    problems: list[str] = []
    if settings.insert_layer == SAME:
        problems.append(f"insert layer {SAME}: vectors come from no layer; name the one to insert them at")
    built = _build(tokenizer, prompts, limits, settings, problems, now or datetime.now(), vectors=vectors)
    if problems:
        raise PlanError(problems)
    return built


def _build(
    tokenizer: Tokenizer,
    prompts: Sequence[InterpretationPrompt | InterpretationPromptSpec],
    limits: Limits,
    settings: InterpretationSettings,
    problems: list[str],
    now: datetime,
    *,
    vectors: int | None = None,
) -> tuple[InterpretationPrompt, ...]:
    """vectors: as for `build_prompts`."""
    layers = settings.insert_layer if isinstance(settings.insert_layer, tuple) else (settings.insert_layer,)
    for layer in layers:
        if layer != SAME and layer >= limits.n_layers:
            problems.append(f"insert layer {layer} is out of range: 0 to {limits.n_layers - 1}")
        elif settings.insert_place == FINAL_NORM and layer != limits.n_layers - 1:
            problems.append(
                f"insert place {FINAL_NORM} is behind the last layer: the insert layer must be {limits.n_layers - 1}"
            )
    built: list[InterpretationPrompt] = []
    for prompt in prompts:
        try:
            if not isinstance(prompt, InterpretationPrompt):
                prompt = prompt.holding(vectors or 1).build(tokenizer, now=now)
        except ValueError as error:
            problems.append(str(error))
            continue
        found = limits.problems(prompt.input_ids, settings.max_new_tokens, min(prompt.insert_locations))
        problems += [f'interpretation prompt "{prompt.name}": {problem}' for problem in found]
        places, strengths = len(prompt.insert_locations), settings.overlay_strength
        if vectors is not None and places != vectors:
            problems.append(
                f'interpretation prompt "{prompt.name}" has {places} placeholder{"s" * (places > 1)} for {vectors} '
                'vectors; give as many, or a prompt with one placeholder and "repeated": true'
            )
        if isinstance(strengths, tuple) and len(strengths) != places:
            problems.append(
                f'interpretation prompt "{prompt.name}" has {places} placeholders and overlay_strength '
                f"{len(strengths)} numbers; give one number for all, or one per placeholder"
            )
        if (prompt.name, prompt.question) in ((other.name, other.question) for other in built):
            asked = "" if prompt.question is None else " and ask the same question"
            problems.append(
                f'two interpretation prompts are named "{prompt.name}"{asked}; their rows could not be distinguished'
            )
        built.append(prompt)
    return tuple(built)


def _source(
    tokenizer: Tokenizer,
    example: Example,
    tokens: Selection,
    new_tokens: int,
    limits: Limits,
    problems: list[str],
    now: datetime,
) -> Source:
    try:
        text, ids = read_prompt(tokenizer, example.prompt, raw=example.raw, now=now)
        if example.minus is not None:
            other_text, other_ids = read_prompt(tokenizer, example.minus, raw=example.raw, now=now)
    except ChatTemplateError as error:
        problem = f"{error}; raw prompts go without it"
        problems += [problem] if problem not in problems else []
        return Source(example, "", (), ())
    problems += [f"{example.name}: {problem}" for problem in limits.problems(ids, new_tokens)]
    try:
        if example.minus is None:
            chosen = range(len(ids) + new_tokens) if tokens.is_all else tokens.positions(len(ids))
            return Source(example, text, ids, chosen)
        problems += [f'{example.name}: "minus" {problem}' for problem in limits.problems(other_ids, 0)]
        pairs = tokens.pairs(len(ids), len(other_ids))
        minus = Subtrahend(other_ids, tuple(pairs.values()))
        return Source(example, f"{text}\n{MINUS.strip()}\n{other_text}", ids, tuple(pairs), minus)
    except ValueError as error:
        problems.append(f"{example.name}: tokens: {error}")
    return Source(example, text, ids, ())
