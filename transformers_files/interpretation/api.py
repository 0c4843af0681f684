"""Interpretations in memory, with a model that is loaded already.

results = interpret(model, tokenizer, "The capital of Italy is", layers="10:25", tokens="last", raw=True)
results.dataframe()

results = interpret(model, tokenizer, "He is sad", minus="He is happy", place="mlp_output", tokens="last,mean(all)")

results = interpret_vectors(model, tokenizer, [state_of_happy - state_of_sad], names=["happy - sad"])
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .engine.cell import Cell
from .engine.decode import interpret_chunk, resolve_batch_size
from .engine.norm_search import choose_strengths
from .engine.sampling import Sampling
from .engine.settings import DEFAULT_PROMPT, DEFAULTS, InterpretationSettings
from .interpretations import Interpretations
from .mapping.affine import AnyMap, map_vectors
from .models.adapters import Adapter
from .models.families import RESIDUAL
from .models.layer_inputs import check_evaluation_mode
from .models.layer_spec import InsertLayer, insert_layer_of
from .models.tokenizer import Tokenizer
from .prompts.examples import Example
from .prompts.index_selection import Selection
from .prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec, find_spec
from .prompts.questions import ask
from .results.record import Record
from .runs.job import interpretation_fields, plan_job
from .runs.limits import Limits
from .runs.planning import build_prompts
from .runs.request import CHUNK_CELLS
from .runs.source_model import SourceModel

if TYPE_CHECKING:
    Prompt = str | InterpretationPrompt | InterpretationPromptSpec
    Indices = str | int | slice | Sequence[int | range] | None


def interpret(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    layers: Indices = None,
    tokens: Indices = None,
    place: str = RESIDUAL,
    minus: str | None = None,
    interpretation_prompt: Prompt | Sequence[Prompt] = DEFAULT_PROMPT,
    question: str | Sequence[str] | None = None,
    raw: bool = False,
    insert_layer: InsertLayer | Sequence[int] = DEFAULTS.insert_layer,
    replacing_mode: str = DEFAULTS.replacing_mode,
    overlay_strength: float | Sequence[float] = DEFAULTS.overlay_strength,
    guidance: float = DEFAULTS.guidance,
    plausibility: float = DEFAULTS.plausibility,
    deep_gain: float = DEFAULTS.deep_gain,
    samples: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 30,
    prompt_output_tokens: int = 1,
    batch_size: int | None = None,
    source_model: nn.Module | None = None,
    source_tokenizer: Tokenizer | None = None,
    mapping: AnyMap = None,
    reader_adapter: str | Path | None = None,
) -> Interpretations:
    """Explain the hidden embeddings of a prompt, and of the tokens that the model generates after it.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's own.
        prompt: what the model reads.
        layers: indices into the n_layers + 1 hidden states; the last is after the final norm. An int, several, a
            slice, or the command line's syntax: "all", "0,5,10", "0:30:5". None: all.
        tokens: the same for token positions, and "last". None and "all": those of the prompt and of its generated
            output; anything else selects among the prompt's alone. "mean(2:5)", or a range in a list, is the average
            over a span. "segment(2:6)" is one thing of four embeddings, which go into a placeholder each: the
            interpretation prompt has as many, or a single one that is `repeated`. Segments have no deep gain.
        place: where embeddings are read: "residual", or within each decoder layer "attention_output", "mlp_input",
            "mlp_output"; see `families.HOOK_POINTS`.
        minus: another prompt; then differences are interpreted, prompt − minus. Each part of `tokens` is taken in both
            prompts and must select as many tokens of one as of the other: "last", negative indices and means always do.
        interpretation_prompt: a built-in name, the path of a JSON file, an InterpretationPrompt, its spec; or several.
        question: put into the {question} field of the interpretation prompts, such as "ask" has; or several.
        raw: feed the prompt as it is; otherwise it becomes a user turn.
        insert_layer: the decoder layer at whose input embeddings are inserted; several: at each of them; "same": each
            at the layer that it comes from.
        replacing_mode: "normalized" (strength 1 overwrites), "addition", "norm_matched" or "norm_matched_addition"; see
            `replacing`.
        overlay_strength: weight of the embedding; several: one per placeholder of the interpretation prompt.
        guidance: γ ≥ 0; how much each token is weighed by what the same text is worth without the embedding. 0: raw
            argmax. See `engine.settings.InterpretationSettings`, also for `plausibility` and `deep_gain`.
        samples: how many interpretations of each embedding to draw at random; 0: one, of the best tokens. With guidance
            they are of the guided distribution; see `InterpretationSettings.sampling`. The numbers of a sample follow
            from `seed` and its cell alone: the embedding's prompt, layer and token, the interpretation prompt, and
            which of the samples it is.
        temperature, top_p, seed: of samples; see `engine.sampling.Sampling`.
        max_new_tokens: the longest interpretation.
        prompt_output_tokens: how many tokens the model generates after the prompt, fewer if it ends by itself.
        batch_size: how many are interpreted at once. None: as many as memory suggests.
        source_model, source_tokenizer: another model that reads the prompt and whose embeddings are explained; its
            tokenizer where it is not `tokenizer`. `layers` and `tokens` are the source's then.
        mapping: from the source's embeddings to the model's: a callable, `[n, source hidden]` to `[n, hidden]`; or a
            dict of them by source layer; see `mapping`. None: as they are.
        reader_adapter: a LoRA adapter, a folder or hub id as PEFT stores it, that is on while the model interprets and
            off while it reads the prompt; there is one copy of the weights. See `models.adapters`.

    Returns:
        one record per (interpretation prompt, question, layer, token, sample), in this order.

    Raises:
        ValueError: arguments that are out of range, unknown, or do not fit the model.
    """
    settings = InterpretationSettings(
        insert_layer_of(insert_layer),
        replacing_mode,
        overlay_strength,
        max_new_tokens,
        guidance,
        plausibility,
        deep_gain,
        Sampling.of(samples, temperature, top_p, seed),
    )
    job = plan_job(
        model if reader_adapter is None else Adapter.find(reader_adapter).on(model),
        tokenizer,
        [Example(name="example_1", prompt=prompt, raw=raw, minus=minus)],
        _prompts(interpretation_prompt, question),
        settings,
        layers=Selection.of(layers),
        tokens=Selection.of(tokens),
        prompt_output_tokens=prompt_output_tokens,
        hook_point=place,
        batch_size=batch_size,
        source_model=SourceModel.of(model, tokenizer, source_model, source_tokenizer, mapping),
    )
    return Interpretations(job.all_records())


def interpret_vectors(
    model: nn.Module,
    tokenizer: Tokenizer,
    vectors: torch.Tensor | Sequence[torch.Tensor],
    *,
    names: Sequence[str] | None = None,
    strength: float | str = 1.0,
    interpretation_prompt: Prompt | Sequence[Prompt] = DEFAULT_PROMPT,
    question: str | Sequence[str] | None = None,
    insert_layer: InsertLayer | Sequence[int] = DEFAULTS.insert_layer,
    replacing_mode: str = DEFAULTS.replacing_mode,
    overlay_strength: float | Sequence[float] = DEFAULTS.overlay_strength,
    guidance: float = DEFAULTS.guidance,
    plausibility: float = DEFAULTS.plausibility,
    samples: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 30,
    batch_size: int | None = None,
    mapping: AnyMap = None,
    reader_adapter: str | Path | None = None,
) -> Interpretations:
    """Explain any vectors of the model's hidden space: a probe, a steering vector, a feature of a sparse autoencoder.

    Args:
        vectors: `[n, hidden]`, or n vectors `[hidden]`; or one for each placeholder, `[n, placeholders, hidden]`.
        names: what to call them, in the column "current token"; None: vector 0, vector 1, …
        mapping: from the vectors' space to the model's, `[n, their size]` to `[n, hidden]`; None: as they are.
        strength: what to multiply the vectors with; "auto": chosen for each vector and interpretation prompt, for
            vectors that have no natural norm (see `strength`), and shown after the vector's name: vector 0 × 12.5.
        other arguments: as for `interpret`. The random numbers of a sample follow from the vector's content, in place
            of where it comes from.

    Returns:
        one record per (interpretation prompt, vector, sample), in this order; `layer_idx` is None, `token_idx` the
        vector's index, `token_source` "vector".

    Raises:
        ValueError: as for `interpret`; vectors of another shape.
    """
    sampling = Sampling.of(samples, temperature, top_p, seed)
    settings = InterpretationSettings(
        insert_layer_of(insert_layer),
        replacing_mode,
        overlay_strength,
        max_new_tokens,
        guidance,
        plausibility,
        sampling=sampling,
    )
    check_evaluation_mode(model)
    model = model if reader_adapter is None else Adapter.find(reader_adapter).on(model)
    rows = _rows(model, vectors, mapping)
    names = [f"vector {index}" for index in range(len(rows))] if names is None else [str(name) for name in names]
    if len(names) != len(rows):
        raise ValueError(f"{len(names)} names for {len(rows)} vectors")
    if strength != "auto" and not (isinstance(strength, (int, float)) and math.isfinite(strength)):
        raise ValueError(f'strength is {strength!r}: give a finite number, or "auto"')
    several = rows.shape[1] if rows.ndim == 3 else None
    if strength == "auto" and several is not None:
        raise ValueError('strength "auto" is for one vector at all placeholders, not for one at each; give a number')
    asked = _prompts(interpretation_prompt, question)
    prompts = build_prompts(tokenizer, asked, Limits.of(model), settings, vectors=several)
    batch_size = resolve_batch_size(model, prompts, settings) if batch_size is None else batch_size
    factors: dict[tuple[InterpretationPrompt, int], float] = {}
    for prompt in prompts if strength == "auto" else ():
        choices = choose_strengths(model, prompt, list(rows), settings, batch_size=batch_size)
        factors |= {(prompt, index): choice.factor for index, choice in enumerate(choices)}
    same = strength if isinstance(strength, (int, float)) else 1.0  # "auto" has a factor for each
    numbers = range(sampling.samples) if sampling else [None]
    addresses = [(prompt, index, sample) for prompt in prompts for index in range(len(rows)) for sample in numbers]
    interpretations = []
    for start in range(0, len(addresses), CHUNK_CELLS):
        part = addresses[start : start + CHUNK_CELLS]
        cells = [
            Cell(
                rows[index] * factors.get((prompt, index), same),
                prompt,
                seed=_seed(sampling, prompt, rows[index], sample),
            )
            for prompt, index, sample in part
        ]
        interpretations += interpret_chunk(model, cells, settings, batch_size=batch_size)
    shown = {
        prompt: _with_factors(names, [factors.get((prompt, index)) for index in range(len(names))])
        for prompt in prompts
    }
    return Interpretations(
        Record(
            name="vectors_1",
            category="vectors",
            prompt="",
            prompt_output="",
            prompt_token_list=shown[prompt],
            layer_idx=None,
            token_idx=index,
            current_token=shown[prompt][index],
            token_source="vector",
            sample=sample,
            **interpretation_fields(tokenizer, prompt, settings, interpretation),
        )
        for (prompt, index, sample), interpretation in zip(addresses, interpretations)
    )


def _seed(
    sampling: Sampling | None, prompt: InterpretationPrompt, vector: torch.Tensor, sample: int | None
) -> int | None:
    """Of a sample of a vector; None where there is no sampling."""
    if sampling is None or sample is None:
        return None
    content = bytes(vector.detach().cpu().contiguous().view(torch.uint8).numpy())
    cell = prompt.input_ids, prompt.insert_locations, hashlib.sha256(content).hexdigest()
    return sampling.seed_of(repr(cell), sample)


def _with_factors(names: Sequence[str], factors: Sequence[float | None]) -> tuple[str, ...]:
    """The names, with the factors that were chosen."""
    return tuple(name if factor is None else f"{name} × {factor:.3g}" for name, factor in zip(names, factors))


def _prompts(
    given: Prompt | Sequence[Prompt], question: str | Sequence[str] | None
) -> list[InterpretationPrompt | InterpretationPromptSpec]:
    known = (str, InterpretationPrompt, InterpretationPromptSpec)
    several = [given] if isinstance(given, known) else list(given)
    for prompt in several:
        if not isinstance(prompt, known):
            raise ValueError(
                f"an interpretation prompt is a name, a path, an InterpretationPrompt or its spec, not {prompt!r}; "
                "for text with placeholders use InterpretationPrompt.from_text or .from_sequence"
            )
    if not several:
        raise ValueError("no interpretation prompt")
    questions = [question] if isinstance(question, str) else list(question or ())
    return ask([find_spec(prompt) if isinstance(prompt, str) else prompt for prompt in several], questions)


def _rows(model: nn.Module, vectors: torch.Tensor | Sequence[torch.Tensor], mapping: AnyMap) -> torch.Tensor:
    """`[n, hidden]` or `[n, placeholders, hidden]`, checked."""
    rows = vectors if isinstance(vectors, torch.Tensor) else _stacked(vectors)
    if len(rows) == 0:
        raise ValueError("no vectors: give at least one")
    hidden = model.get_input_embeddings().weight.shape[-1]
    if mapping is not None and rows.ndim in (2, 3):
        return map_vectors(mapping, rows.flatten(0, -2), None, hidden).unflatten(0, rows.shape[:-1])
    if rows.ndim not in (2, 3) or rows.shape[-1] != hidden or not rows.is_floating_point():
        shape = " × ".join(map(str, rows.shape))
        raise ValueError(
            f"vectors are {rows.dtype}, {shape}; expected floating point numbers, n × {hidden}, or n × placeholders × "
            f"{hidden}"
        )
    return rows


def _stacked(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several vectors as one tensor."""
    try:
        each = [torch.as_tensor(vector) for vector in vectors]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"vectors must be tensors, or numbers that make one: {error}") from None
    shapes = dict.fromkeys(tuple(vector.shape) for vector in each)
    if len(shapes) > 1:
        raise ValueError(f"vectors must be of one shape, not of {len(shapes)}: {', '.join(map(str, shapes))}")
    return torch.stack(each) if each else torch.empty(0)
