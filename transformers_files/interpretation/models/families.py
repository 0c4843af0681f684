"""Where a causal language model keeps its decoder layers.

    layers = decoder_layers(model)      # the nn.ModuleList
    owner = decoder(model)              # the module that runs them, e.g. model.model

Where the look-up fails, the model can be given the path: ``model.interpretation_layers = "path.to.layers"``.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

LAYER_LIST_NAMES = ("layers", "h", "blocks", "layer")
REMEDY = 'say where they are: model.interpretation_layers = "path.to.layers" (a dotted path to an nn.ModuleList)'


class UnsupportedModelError(ValueError):
    """The decoder layers of a model cannot be found, or its kind cannot be operated on."""


@dataclass(frozen=True)
class Family:
    """A family of models that the tests cover wherever the installed version has it."""

    model_type: str
    """``config.model_type``"""
    causal_lm: str
    """name of the class with the language modeling head"""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """configuration values that a tiny random model of this family needs beyond the common ones"""


FAMILIES: tuple[Family, ...] = (
    Family("llama", "LlamaForCausalLM"),
    Family("mistral", "MistralForCausalLM"),
    Family("mixtral", "MixtralForCausalLM", {"num_local_experts": 4}),
    Family("qwen2", "Qwen2ForCausalLM"),
    Family("qwen3", "Qwen3ForCausalLM", {"head_dim": 8}),
    Family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    Family("gemma", "GemmaForCausalLM", {"head_dim": 8}),
    Family("gemma2", "Gemma2ForCausalLM", {"head_dim": 8}),
    Family("gemma3_text", "Gemma3ForCausalLM", {"head_dim": 8}),
    Family("phi", "PhiForCausalLM"),
    Family("phi3", "Phi3ForCausalLM"),
    Family("olmo", "OlmoForCausalLM"),
    Family("olmo2", "Olmo2ForCausalLM"),
    Family("gpt_oss", "GptOssForCausalLM", {"head_dim": 8, "num_local_experts": 4}),
    Family("gpt_neox", "GPTNeoXForCausalLM"),
    Family("gpt2", "GPT2LMHeadModel"),
    Family("gptj", "GPTJForCausalLM", {"rotary_dim": 4}),
    Family("falcon", "FalconForCausalLM"),
    Family("stablelm", "StableLmForCausalLM"),
    Family("granite", "GraniteForCausalLM"),
    Family("cohere", "CohereForCausalLM"),
    Family("starcoder2", "Starcoder2ForCausalLM"),
    Family("smollm3", "SmolLM3ForCausalLM"),
    Family("cohere2", "Cohere2ForCausalLM", {"head_dim": 8}),
    Family("olmo3", "Olmo3ForCausalLM"),
    Family("qwen2_moe", "Qwen2MoeForCausalLM", {"num_experts": 4, "moe_intermediate_size": 32}),
    Family("glm4", "Glm4ForCausalLM", {"head_dim": 8}),
    Family("nemotron", "NemotronForCausalLM"),
    Family("opt", "OPTForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    Family("bloom", "BloomForCausalLM"),
    Family("gpt_bigcode", "GPTBigCodeForCausalLM"),
    Family("codegen", "CodeGenForCausalLM", {"rotary_dim": 4}),
)


def decoder(model: nn.Module) -> nn.Module:
    """The module that owns and runs the decoder layers.

    Raises `UnsupportedModelError` where it cannot be found; warns for a model outside `FAMILIES`.
    """
    return _locate(model)[0]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers, in the order in which they run.

    Raises `UnsupportedModelError` where they cannot be found; warns for a model outside `FAMILIES`.
    """
    return _locate(model)[1]


def _locate(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    path = getattr(model, "interpretation_layers", None)
    if path is not None:
        return _follow(model, path)
    model = base_model(model)
    config = getattr(model, "config", None)
    name = getattr(config, "model_type", type(model).__name__)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; only decoder-only models are supported")
    for owner in _candidates(model):
        for attribute in LAYER_LIST_NAMES:
            layers = getattr(owner, attribute, None)
            if isinstance(layers, nn.ModuleList) and len(layers) > 0:
                _warn_outside_the_table(name)
                return owner, layers
    raise UnsupportedModelError(f"the decoder layers of {name} ({type(model).__name__}) were not found; {REMEDY}")


def _follow(model: nn.Module, path: str) -> tuple[nn.Module, nn.ModuleList]:
    *parents, last = path.split(".")
    owner = model
    try:
        for parent in parents:
            owner = getattr(owner, parent)
        layers = getattr(owner, last)
    except AttributeError as error:
        raise UnsupportedModelError(f"interpretation_layers = {path!r}: {error}") from None
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedModelError(
            f"interpretation_layers = {path!r} is a {type(layers).__name__}, not an nn.ModuleList; {REMEDY}"
        )
    return owner, layers


def base_model(model: nn.Module) -> nn.Module:
    """The model inside a PEFT wrapper; any other model as it is.

    A wrapper that puts learned embeddings before the prompt is refused: the model would count positions without them.
    """
    inner = getattr(model, "get_base_model", None)
    if not callable(inner):
        return model
    adapter = getattr(model, "active_peft_config", None)
    if adapter is not None and getattr(adapter, "is_prompt_learning", False):
        raise UnsupportedModelError(
            f"{adapter.peft_type.value} puts learned embeddings before the prompt, outside the model that PEFT wraps; "
            "use an adapter that changes the model itself, such as LoRA, or model.get_base_model() for the model alone"
        )
    return inner()


def written_class(module: nn.Module) -> Any:
    """The class whose code a module runs: `torch.compile` wraps modules in one of its own that takes anything."""
    return type(getattr(module, "_orig_mod", module))


def forward_parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """What a module's forward takes, as its class is written."""
    return inspect.signature(written_class(module).forward).parameters


def is_tested(model: nn.Module) -> bool:
    """Whether a model is of a family that the tests cover."""
    name = getattr(getattr(base_model(model), "config", None), "model_type", None)
    return any(family.model_type == name for family in FAMILIES)


def _candidates(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that may own the layers, the most telling first."""
    get_decoder = getattr(model, "get_decoder", None)
    if callable(get_decoder):
        # some versions define it for every model and let it fail where there is none
        with contextlib.suppress(AttributeError, NotImplementedError):
            yield get_decoder()
    for name in ("base_model", "model"):
        module = getattr(model, name, None)
        if isinstance(module, nn.Module):
            yield module
            encoder = getattr(module, "encoder", None)  # BERT and its kin, as decoders too
            if isinstance(encoder, nn.Module) and isinstance(getattr(encoder, "layer", None), nn.ModuleList):
                yield encoder
    yield model


def _warn_outside_the_table(name: str) -> None:
    if all(family.model_type != name for family in FAMILIES):
        warnings.warn(
            f"{name} is not among the tested families of models; its decoder layers were found by their name",
            stacklevel=2,
        )
