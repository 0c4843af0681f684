"""One model against plain hooks: what it does under surgery, and what is read of it, or why it is refused.

    examine("Qwen3NextForCausalLM")      # outcome of each check, and remarks

The model is built tiny and with random weights (`tiny_classes`). Four things are compared with a reference made of
plain torch hooks alone:

- forward: `forward_interpret` over a whole prompt, its logits;
- generate: `generate_interpret`, its tokens;
- engine: `interpret_chunk`, tokens, probabilities and relevancy of three vectors;
- capture: `capture`, hidden states of every layer.

The reference decodes by the library's own `generate`, with its cache. Where that differs from passes over the whole
text, which happens without any surgery, a remark says so.

Outcomes: equal; refused (`UnsupportedModelError`, before the model has read any of the text); different; crashed; not
built (the library itself cannot make or run the class from token ids alone).
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from plain_hooks import (
    GREEDY,
    INSERT_LAYER,
    NEW_TOKENS,
    PLACES,
    PROMPT,
    decoded,
    inserting,
    layer_list,
    whole_pass,
    without_cache,
)
from tiny_classes import tiny_instance
from torch import Tensor, nn

CHECKS = ("forward", "generate", "engine", "capture")
NOT_COMPARED = "not compared"
OUTCOMES = ("equal", NOT_COMPARED, "refused", "not built", "different", "crashed")
"""From the best to the worst: a class has its worst check's. Not compared: a single check, which the library fails."""

TOLERANCE = 2e-4


class Different(Exception):
    """What was computed is not what the reference says."""


class NotBuilt(Exception):
    """The library itself cannot make this class, or run it from token ids alone."""


# ---- the checks


def check_forward(model: nn.Module, layers: nn.ModuleList, vectors: Sequence[Tensor]) -> None:
    ids, info = torch.tensor([PROMPT]), [_info(vectors[0])]
    whole = {"input_ids": ids, **without_cache(model)}
    found = _ours(model, lambda: model.forward_interpret(**whole, insert_info=info).logits)
    with inserting(layers, vectors[0]):
        _same("logits", found, whole_pass(model).logits)


def check_generate(model: nn.Module, layers: nn.ModuleList, vectors: Sequence[Tensor]) -> None:
    ids, info = torch.tensor([PROMPT]), [_info(vectors[0])]
    try:
        expected, logits = decoded(model, layers, vectors[0])
    except Exception as error:
        _ours(model, lambda: model.forward_interpret(ids, insert_info=info, **without_cache(model)))  # refused?
        raise NotBuilt(f"the library itself cannot generate: {_short(error)}") from error
    found = _ours(model, lambda: model.generate_interpret(ids, insert_info=info, **GREEDY))
    _same_tokens(found[0, len(PROMPT) :].tolist(), expected, logits)


def check_engine(model: nn.Module, layers: nn.ModuleList, vectors: Sequence[Tensor]) -> None:
    from transformers.interpretation.engine.decode import Cell, InterpretationSettings, interpret_chunk
    from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

    prompt = InterpretationPrompt("tiny", PROMPT, PLACES, text="")
    settings = InterpretationSettings(insert_layer=INSERT_LAYER, max_new_tokens=NEW_TOKENS)
    cells = [Cell(vector, prompt) for vector in vectors]
    found = _ours(model, lambda: interpret_chunk(model, cells, settings, batch_size=2))
    for interpretation, vector in zip(found, vectors):
        tokens, logits = decoded(model, layers, vector)
        if _same_tokens(list(interpretation.token_ids), tokens, logits):
            continue
        _, without = decoded(model, layers, None, tokens)
        steps = torch.arange(len(tokens))
        probabilities = logits.softmax(-1)[steps, tokens]
        _same("probabilities", torch.tensor(interpretation.probabilities), probabilities)
        relevancy = (probabilities - without.softmax(-1)[steps, tokens]).abs()
        _same("relevancy", torch.tensor(interpretation.relevancy), relevancy)


def check_capture(model: nn.Module, layers: nn.ModuleList, vectors: Sequence[Tensor]) -> None:
    from transformers.interpretation.models.activations import capture

    seen: dict[int, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, number=number: seen.__setitem__(
                number, (args[0] if args else kwargs["hidden_states"]).clone()
            ),
            with_kwargs=True,
        )
        for number, layer in enumerate(layers)
    ]
    whole_pass(model)
    for handle in handles:
        handle.remove()
    places = [0, 7, -1]
    found = _ours(model, lambda: capture(model, torch.tensor([PROMPT]), [*seen, len(layers)], places))
    for number, hidden, states in zip(seen, seen.values(), found):
        _same(f"layer {number}", states, hidden[0, places])


def _ours(model: nn.Module, call: Callable[[], Any]) -> Any:
    """What the call gives. One that refuses the model must not have read the text before."""
    from transformers.interpretation.models.families import UnsupportedModelError

    read: list[int] = []
    watch = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].shape[-1]))
    try:
        return call()
    except UnsupportedModelError as error:
        if any(columns >= len(PROMPT) for columns in read):
            raise Different(f"refused, but only after it had read the text: {error}") from error
        raise
    finally:
        watch.remove()


def _info(vector: Tensor) -> dict[Any, Any]:
    embedding = vector.expand(1, len(PLACES), -1)
    return {INSERT_LAYER: (list(PLACES), embedding), "overlay_strength": 1.0, "replacing_mode": "normalized"}


def _same(what: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        raise Different(f"{what}: shape {list(found.shape)}, not {list(expected.shape)}")
    away = float((found.float() - expected.float()).abs().max())
    if not away <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise Different(f"{what}: up to {away:.2g} away")


def _same_tokens(found: list[int], expected: list[int], logits: Tensor) -> bool:
    """Raises where they differ, unless two logits tie there: then True, and there is nothing more to compare."""
    if found == expected:
        return False
    step = next((step for step, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), None)
    if step is None:
        raise Different(f"{len(found)} tokens, not {len(expected)}")
    best = logits[step].topk(2).values
    if float(best[0] - best[1]) > TOLERANCE:
        raise Different(f"token {step} is {found[step]}, not {expected[step]}")
    return True


# ---- one class


def examine(class_name: str) -> dict[str, Any]:
    """Outcome of each check, and remarks."""
    from transformers import GenerationConfig

    record: dict[str, Any] = {"class": class_name, "remarks": []}
    try:
        model = tiny_instance(class_name)
        if not hasattr(model, "generate"):
            raise NotBuilt("the library has no generation for it")
        model.generation_config = GenerationConfig(pad_token_id=0)  # no end of sequence, and no forced tokens
        _path, layers, shape = layer_list(model)
        record["model_type"] = model.config.model_type
    except Exception as error:
        return record | {"outcome": "not built", "why": _short(error)}
    hidden = shape[-1]
    if shape != (1, len(PROMPT), hidden):
        record["remarks"].append(f"its layers are given {list(shape)}")
    vectors = [torch.randn(hidden, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    try:
        cached, whole = decoded(model, layers, None), decoded(model, layers, None, use_cache=False)
        if cached[0] != whole[0] or float((cached[1] - whole[1]).abs().max()) > 1e-3:
            record["remarks"].append("the library's cached decoding differs from its uncached one")
    except Exception as error:
        record["remarks"].append(f"the library cannot generate: {_short(error)}")
    for name in CHECKS:
        record[name], record[f"{name}: why"] = _outcome(globals()[f"check_{name}"], model, layers, vectors)
    record["outcome"] = max((record[name] for name in CHECKS), key=OUTCOMES.index)
    return record


def _outcome(check: Callable[..., None], model: nn.Module, layers: nn.ModuleList, vectors: list) -> tuple[str, str]:
    from transformers.interpretation.models.families import UnsupportedModelError

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check(model, layers, vectors)
        ours = [str(warning.message) for warning in caught if "slower" in str(warning.message)]
        return "equal", "; ".join(dict.fromkeys(ours))
    except UnsupportedModelError as error:
        return "refused", _short(error)
    except NotBuilt as error:
        return NOT_COMPARED, str(error)
    except Different as error:
        return "different", str(error)
    except Exception as error:
        return "crashed", _short(error)


def _short(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({Path(last.filename).name}:{last.lineno})"
