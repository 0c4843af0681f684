"""Interpretations in memory, with a model that is loaded already.

results = interpret(model, tokenizer, "The capital of Italy is", layers="10:25", tokens="last", raw=True)
results.dataframe()

results = interpret(model, tokenizer, "He is sad", minus="He is happy", place="mlp_output", tokens="last,mean(all)")

results = interpret_vectors(model, tokenizer, [state_of_happy - state_of_sad], names=["happy - sad"])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .engine.decode import interpret_chunk, resolve_batch_size
from .engine.sampling import Sampling
from .engine.settings import DEFAULT_PROMPT, DEFAULTS, InterpretationSettings
from .interpretations import Interpretations
from .mapping.affine import AnyMap
from .models.adapters import Adapter
from .models.default_device import cpu_by_default
from .models.hook_points import check_writable
from .models.layer_inputs import check_evaluation_mode
from .models.layer_spec import InsertLayer, insert_layer_of
from .models.places import RESIDUAL
from .models.tokenizer import Tokenizer
from .prompt_argument import Prompt, prompts_of
from .prompts.examples import Example
from .prompts.index_selection import Selection
from .reader_argument import AnyReader, fitted_reader
from .results.record import Record
from .runs.job import plan_job
from .runs.limits import Limits
from .runs.planning import build_prompts
from .runs.request import CHUNK_CELLS
from .runs.source_model import SourceModel
from .runs.vectors import VectorJob, vector_rows

if TYPE_CHECKING:
    Indices = str | int | slice | Sequence[int | range | str] | None


@cpu_by_default
def interpret(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str | Sequence[str],
    *,
    layers: Indices = None,
    tokens: Indices = None,
    place: str = RESIDUAL,
    minus: str | None = None,
    interpretation_prompt: Prompt | Sequence[Prompt] = DEFAULT_PROMPT,
    question: str | Sequence[str] | None = None,
    raw: bool = False,
    insert_layer: InsertLayer | Sequence[int] = DEFAULTS.insert_layer,
    insert_place: str = DEFAULTS.insert_place,
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
    reader: AnyReader | None = None,
    progress: bool = False,
) -> Interpretations:
    """Explain the hidden embeddings of a prompt, and of the tokens that the model generates after it.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's own.
        prompt: what the model reads; or several, in the records example_1, example_2, …
        layers: indices into the n_layers + 1 hidden states; the last is after the final norm. An int, several, a
            slice, or the command line's syntax: "all", "0,5,10", "0:30:5". None: all. Names of other libraries count as
            well: "resid_post.10" is layer 11; see `models.layer_names`.
        tokens: the same for token positions, and "last". None and "all": those of the prompt and of its generated
            output; anything else selects among the prompt's alone. "mean(2:5)", or a range in a list, is the average
            over a span. "segment(2:6)" is one thing of four embeddings, which go into a placeholder each: the
            interpretation prompt has as many, or a single one that is `repeated`. Segments have no deep gain.
        place: where embeddings are read: "residual", or of each decoder layer "attention_output", "residual_mid",
            "mlp_input", "mlp_output" or "layer_output"; see `places.HOOK_POINTS`.
        minus: another prompt; then differences are interpreted, prompt − minus. Each part of `tokens` is taken in both
            prompts and must select as many tokens of one as of the other: "last", negative indices and means always do.
        interpretation_prompt: a built-in name, the path of a JSON file, an InterpretationPrompt, its spec, a sequence
            of text and ints (each a placeholder); or several of them.
        question: put into the {question} field of the interpretation prompts, such as "ask" has; or several.
        raw: feed the prompt as it is; otherwise it becomes a user turn.
        insert_layer: the decoder layer at whose input embeddings are inserted; several: at each of them; "same": each
            at the layer that it comes from.
        insert_place: where in that layer: "residual" (its input), "attention_output", "residual_mid", "mlp_input",
            "mlp_output" or "layer_output"; or "final_norm", what that norm makes of the output of the last layer, which
            is to be `insert_layer` then.
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
        reader: a published reader, by its file, folder or hub id: a SelfIE adapter or an Activation Oracle; see
            `readers.formats`. It sets interpretation prompt, insert layer, mode, strength, guidance, gain, mapping and
            adapter, which are to be left out then, and `layers` where none are given.
        progress: show a bar, in a notebook or a terminal; needs the package tqdm.

    Returns:
        one record per (prompt, interpretation prompt, question, layer, token, sample), in this order.

    Raises:
        ValueError: arguments that are out of range, unknown, or do not fit the model.
    """
    texts = [prompt] if isinstance(prompt, str) or not isinstance(prompt, Sequence) else list(prompt)
    if not texts:
        raise ValueError("no prompt: give at least one")
    settings = InterpretationSettings(
        insert_layer_of(insert_layer),
        replacing_mode,
        overlay_strength,
        max_new_tokens,
        guidance,
        plausibility,
        deep_gain,
        Sampling.of(samples, temperature, top_p, seed),
        insert_place,
    )
    adapter = None if reader_adapter is None else Adapter.find(reader_adapter)
    if reader is not None:
        chosen = None if layers is None else Selection.of(layers).text
        fitted = fitted_reader(reader, model, tokenizer, chosen, locals())
        interpretation_prompt, layers, mapping, adapter = fitted.prompt, fitted.layers, fitted.mapping, fitted.adapter
        settings = replace(settings, **fitted.settings)
    job = plan_job(
        model if adapter is None else adapter.on(model),
        tokenizer,
        [Example(f"example_{number}", text, raw=raw, minus=minus) for number, text in enumerate(texts, start=1)],
        prompts_of(interpretation_prompt, question),
        settings,
        layers=Selection.of(layers),
        tokens=Selection.of(tokens),
        prompt_output_tokens=prompt_output_tokens,
        hook_point=place,
        batch_size=batch_size,
        source_model=SourceModel.of(model, tokenizer, source_model, source_tokenizer, mapping),
    )
    return Interpretations(_shown(job.all_records(), job.plan.n_cells, progress))


@cpu_by_default
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
    insert_place: str = DEFAULTS.insert_place,
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
    reader: AnyReader | None = None,
    layer: int | None = None,
    pairwise: bool = False,
    progress: bool = False,
) -> Interpretations:
    """Explain any vectors of the model's hidden space: a probe, a steering vector, a feature of a sparse autoencoder.

    Args:
        vectors: `[n, hidden]`, or n vectors `[hidden]`; or one for each placeholder, `[n, placeholders, hidden]`. A
            single one, `[hidden]`, as well.
        names: what to call them, in the column "current token"; None: vector 0, vector 1, …
        mapping: from the vectors' space to the model's, `[n, their size]` to `[n, hidden]`; None: as they are.
        strength: what to multiply the vectors with; "auto": chosen for each vector and interpretation prompt, for
            vectors that have no natural norm (see `strength`), and shown after the vector's name: vector 0 × 12.5.
        layer: whose vectors they are, where a reader has to know.
        pairwise: the first vector with the first interpretation prompt, the second with the second, and so on, in place
            of every vector with every prompt.
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
        insert_place=insert_place,
    )
    check_evaluation_mode(model)
    adapter = None if reader_adapter is None else Adapter.find(reader_adapter)
    if reader is not None:
        fitted = fitted_reader(reader, model, tokenizer, None if layer is None else str(layer), locals())
        interpretation_prompt, mapping, adapter = fitted.prompt, fitted.mapping, fitted.adapter
        settings = replace(settings, **fitted.settings)
    model = model if adapter is None else adapter.on(model)
    rows = vector_rows(model, vectors, mapping)
    several = rows.shape[1] if rows.ndim == 3 else None
    asked = prompts_of(interpretation_prompt, question)
    prompts = build_prompts(tokenizer, asked, Limits.of(model), settings, vectors=several)
    check_writable(model, settings.layers_of(()), settings.insert_place)
    batch_size = resolve_batch_size(model, prompts, settings) if batch_size is None else batch_size
    job = VectorJob(
        model,
        tokenizer,
        rows,
        prompts,
        settings,
        names=names,
        strength=strength,
        batch_size=batch_size,
        pairwise=pairwise,
    )
    return Interpretations(_shown(_vector_records(job, model, batch_size), len(job.addresses), progress))


def _vector_records(job: VectorJob, model: nn.Module, batch_size: int) -> Iterator[Record]:
    for start in range(0, len(job.addresses), CHUNK_CELLS):
        ready = job.ready(job.addresses[start : start + CHUNK_CELLS])
        found = interpret_chunk(model, [one.cell for one in ready], job.settings, batch_size=batch_size)
        yield from map(job.record, ready, found)


def _shown(records: Iterable[Record], cells: int, progress: bool) -> Iterable[Record]:
    """The records, with a bar where it is wanted."""
    if not progress:
        return records
    from tqdm.auto import tqdm

    return tqdm(records, total=cells, unit="cell")
