"""The three methods that the patch binds: `forward`, `generate` and greedy search under surgery.

Without `insert_info` (None, or empty dicts only) each is exactly the plain call: not one hook is set.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..models.families import decoder_layers
from ..models.kv_cache import cache_in, cached_length
from ..models.layer_inputs import check_layer_inputs, hidden_size
from ..models.pre_mlp import pre_mlp_states
from .generation_support import effective_config, refuse_unsupported
from .hooks import SurgeryPlan, plan_surgery, surgery, surgery_disabled

InsertInfo = Sequence[Mapping[Any, Any]]


def bind(cls: Any) -> None:
    """Give a class that has `generate` the three methods."""
    cls.forward_interpret = forward_interpret
    cls.generate_interpret = _with_signature_of(cls.generate, generate_interpret)
    cls.greedy_search_interpret = greedy_search_interpret


def bind_forward(cls: Any) -> None:
    """Give a class `forward_interpret` with the explicit signature of its own `forward`."""
    cls.forward_interpret = _with_signature_of(cls.forward, forward_interpret, "output_pre_mlp_states")


def without_surgery(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; passes that it runs see no surgery."""

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with surgery_disabled():
            return function(*args, **kwargs)

    return plain


def forward_interpret(
    self: Any, *args: Any, insert_info: InsertInfo | None = None, output_pre_mlp_states: bool = False, **kwargs: Any
) -> Any:
    """`forward` with hidden embeddings replaced or shifted.

    Takes what `forward` takes, and `insert_info` as `transformers.interpretation.surgery.insert_info` describes it.
    The returned `hidden_states[i]` include the surgery at layer i; gradients flow through the inserted embeddings.

    output_pre_mlp_states: return a pair, the output and the states around each MLP: a tuple of n_layers + 1 pairs as
    `models.pre_mlp.pre_mlp_states` describes them.
    """
    plan = None if insert_info is None else _forward_plan(self, insert_info, args, kwargs)
    with ExitStack() as stack:
        if plan is not None:
            stack.enter_context(surgery(self, plan))
        if not output_pre_mlp_states:
            return self(*args, **kwargs)
        pairs = stack.enter_context(pre_mlp_states(self))  # within the surgery, whose result it is to see
        return self(*args, **kwargs), tuple(pairs)


def _forward_plan(model: Any, insert_info: InsertInfo, args: tuple, kwargs: Mapping[str, Any]) -> SurgeryPlan | None:
    given, rest = _named(model.forward, args, kwargs)
    given |= rest
    tokens = given.get("inputs_embeds") if given.get("inputs_embeds") is not None else given.get("input_ids")
    if tokens is None:
        raise ValueError("insert_info needs a prompt to insert into: give input_ids or inputs_embeds")
    cached = cached_length(cache_in(given))
    length, mask = cached + tokens.shape[1], given.get("attention_mask")
    return _plan(model, insert_info, tokens, length, cached, mask, generates=False)


def generate_interpret(self: Any, *args: Any, insert_info: InsertInfo | None = None, **kwargs: Any) -> Any:
    """`generate` with hidden embeddings of the prompt, or of the tokens that it generates, replaced or shifted.

    Takes what `generate` takes, and `insert_info` as `transformers.interpretation.surgery.insert_info` describes it,
    one dict per row of the prompt: rows that beams or several return sequences add carry the surgery of the row they
    came from.
    Raises `ValueError` for a decoding mode that could not be carried out exactly, before any model work.
    """
    if insert_info is None:
        return self.generate(*args, **kwargs)
    given, rest = _named(_signed(self.generate, self), args, kwargs)
    config, model_inputs = effective_config(self, given, rest)
    plan = _generation_plan(self, insert_info, given.get("inputs"), config, model_inputs)
    if plan is None:
        return self.generate(*args, **kwargs)
    refuse_unsupported(self, given, config, plan.batch_size)
    with surgery(self, plan):
        return self.generate(*args, **kwargs)


def greedy_search_interpret(
    self: Any,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    max_length: int | None = None,
    pad_token_id: int | None = None,
    eos_token_id: int | list[int] | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    output_scores: bool | None = None,
    return_dict_in_generate: bool | None = None,
    synced_gpus: bool = False,
    streamer: Any = None,
    insert_info: InsertInfo | None = None,
    **model_kwargs: Any,
) -> Any:
    """Greedy search as transformers 4.34.0 has it, with hidden embeddings of the prompt replaced or shifted.

    input_ids: [batch, sequence]. Unlike `generate` it reads no sampling or penalty settings of the model, and
    infers no attention mask. Versions without a public `greedy_search` run it through `generate`.
    """
    plan = None
    if insert_info is not None:
        cached = cached_length(cache_in(model_kwargs))
        length, mask = input_ids.shape[1], model_kwargs.get("attention_mask")
        plan = _plan(self, insert_info, input_ids, length, cached, mask, generates=True)
    outputs = {
        "output_attentions": output_attentions,
        "output_hidden_states": output_hidden_states,
        "output_scores": output_scores,
        "return_dict_in_generate": return_dict_in_generate,
    }
    search = functools.partial(
        getattr(self, "greedy_search", None) or functools.partial(_greedy_search, self),
        input_ids,
        logits_processor=logits_processor,
        stopping_criteria=stopping_criteria,
        max_length=max_length,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        synced_gpus=synced_gpus,
        streamer=streamer,
        **outputs,
        **model_kwargs,
    )
    if plan is None:
        return search()
    with surgery(self, plan):
        return search()


def _greedy_search(
    model: Any,
    input_ids: Tensor,
    *,
    logits_processor: Any,
    stopping_criteria: Any,
    max_length: int | None,
    synced_gpus: bool,
    streamer: Any,
    **options: Any,
) -> Any:
    """4.34.0's greedy search by way of `generate`; `options` are fields of the generation config and model inputs."""
    from transformers import GenerationConfig
    from transformers.generation import MaxLengthCriteria

    criteria = list(stopping_criteria or [])
    limits = [criterion.max_length for criterion in criteria if isinstance(criterion, MaxLengthCriteria)]
    limits += [] if max_length is None else [max_length]
    outputs = ("output_attentions", "output_hidden_states", "output_scores", "return_dict_in_generate")
    fields = ("pad_token_id", "eos_token_id", *outputs)
    own = model.generation_config
    chosen = {field: options.pop(field) for field in fields}
    chosen = {field: getattr(own, field, None) if value is None else value for field, value in chosen.items()}
    options.setdefault("attention_mask", torch.ones_like(input_ids))
    # The model's own generation config overrides defaults of an explicit one. A shallow copy has the same weights and
    # modules, hooks included, and a config of its own: other threads that generate meanwhile keep theirs.
    plain = copy.copy(model)
    plain.generation_config = GenerationConfig()
    return plain.generate(
        input_ids,
        generation_config=GenerationConfig(do_sample=False, max_length=min(limits, default=sys.maxsize), **chosen),
        logits_processor=logits_processor,
        stopping_criteria=[criterion for criterion in criteria if not isinstance(criterion, MaxLengthCriteria)],
        synced_gpus=synced_gpus,
        streamer=streamer,
        **options,
    )


def _generation_plan(
    model: Any, insert_info: InsertInfo, inputs: Tensor | None, config: Any, model_inputs: Mapping[str, Any]
) -> SurgeryPlan | None:
    """The plan for the prompt of `generate`: embeddings, else token ids, else one begin-of-sequence token."""
    embeds = model_inputs.get("inputs_embeds")
    tokens = embeds if embeds is not None else model_inputs.get("input_ids") if inputs is None else inputs
    if tokens is None:
        tokens = torch.ones((1, 1), dtype=torch.long)
    cached, mask, length = cached_length(cache_in(model_inputs)), None, tokens.shape[1]
    if model_inputs.get("attention_mask") is not None:
        mask = model_inputs["attention_mask"]
        if cached and mask.ndim == 2 and mask.shape[1] > length:
            length = mask.shape[1]  # only the tokens after the cache were given, and the mask of all
    elif tokens.ndim == 2:
        mask = _mask_from_padding(tokens, config)
    return _plan(model, insert_info, tokens, length, cached, mask, generates=True)


def _mask_from_padding(input_ids: Tensor, config: Any) -> Tensor | None:
    """The attention mask that `generate` infers where none is given."""
    pad, eos = config.pad_token_id, config.eos_token_id
    ends = eos if isinstance(eos, (list, tuple)) else [eos]
    return None if pad is None or pad in ends else input_ids.ne(pad)


def _plan(
    model: Any,
    insert_info: InsertInfo,
    tokens: Tensor,
    length: int,
    cached: int,
    mask: Tensor | None,
    *,
    generates: bool,
) -> SurgeryPlan | None:
    if any(insert_info):
        check_layer_inputs(model)
    return plan_surgery(
        insert_info,
        n_layers=len(decoder_layers(model)),
        hidden_size=hidden_size(model),
        batch_size=tokens.shape[0],
        prompt_length=length,
        cached_length=cached,
        attention_mask=mask,
        dtype=model.dtype,
        generates=generates,
    )


def _signed(generate: Callable[..., Any], model: Any) -> Callable[..., Any]:
    """A model's `generate`, or that of the library where the model's own names no arguments (RWKV up to 4.41)."""
    from transformers import GenerationMixin

    named = "inputs" in inspect.signature(generate).parameters
    return generate if named else functools.partial(GenerationMixin.generate, model)


def _named(
    function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a call by name, and apart from them those that its ``**kwargs`` take."""
    signature = inspect.signature(function)
    named = dict(signature.bind(*args, **kwargs).arguments)
    variable = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    return named, {key: value for name in variable for key, value in named.pop(name, {}).items()}


def _with_signature_of(function: Callable[..., Any], method: Callable[..., Any], *flags: str) -> Callable[..., Any]:
    """A copy of `method` that shows the signature of `function` plus `insert_info` and these flags."""

    @functools.wraps(method)
    def bound(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    at = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    defaults = {"insert_info": None} | dict.fromkeys(flags, False)
    parameters[at:at] = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()
    ]
    shown: Any = bound
    shown.__signature__ = signature.replace(parameters=parameters)
    return shown
