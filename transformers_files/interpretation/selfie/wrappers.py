"""Forward passes and generation as functions of the model, for code that calls them so."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.families import decoder
from ..models.kv_cache import NAMES
from ..models.pre_mlp import pre_mlp_states_of_layer

InsertInfo = Sequence[Mapping[Any, Any]]


@torch.no_grad()
def generate_interpret(
    model: nn.Module, inputs: Tensor | None = None, *args: Any, insert_info: InsertInfo | None = None, **kwargs: Any
) -> Any:
    """`model.generate_interpret`: what `generate` takes and returns, under surgery."""
    return model.generate_interpret(inputs, *args, insert_info=insert_info, **kwargs)


def model_forward_interpret(
    model: nn.Module,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
    inputs_embeds: Tensor | None = None,
    labels: Tensor | None = None,
    use_cache: bool | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    insert_info: InsertInfo | None = None,
    output_pre_mlp_states: bool = False,
) -> Any:
    """A pass of the model with its head, under surgery.

    Returns its output; with `output_pre_mlp_states` a pair, the output and n_layers + 1 pairs `(MLP input, residual
    stream before the norm in front of the MLP)`, each `[batch, sequence, hidden]`. The pair at index l is of decoder
    layer l − 1; the first is twice the embeddings. Gradients flow.
    """
    given = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "past_key_values": past_key_values,
        "inputs_embeds": inputs_embeds,
        "labels": labels,
        "use_cache": use_cache,
        "output_attentions": output_attentions,
        "output_hidden_states": output_hidden_states,
        "return_dict": return_dict,
    }
    return model.forward_interpret(
        **_without_none(given), insert_info=insert_info, output_pre_mlp_states=output_pre_mlp_states
    )


def model_model_forward_interpret(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """A pass of the decoder within the model, without its head; other arguments as of `model_forward_interpret`.

    Returns its output and the n_layers + 1 pairs; with `return_dict=False` the output alone, a tuple.
    """
    named = inspect.signature(model_forward_interpret).bind(model, *args, **kwargs).arguments
    del named["model"]
    output, pairs = decoder(model).forward_interpret(**_without_none(named) | {"output_pre_mlp_states": True})
    return output if named.get("return_dict") is False else (output, pairs)


def decoder_layer_forward_interpret(
    hidden_states: Tensor,
    decoder_layer: nn.Module,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_value: Any = None,
    output_attentions: bool = False,
    use_cache: bool = False,
    padding_mask: Tensor | None = None,
    **more: Any,
) -> tuple[tuple[Any, ...], tuple[Tensor, Tensor]]:
    """A pass of one decoder layer.

    more: what the layers of newer versions take besides, such as `position_embeddings`, which the decoder makes there.

    Returns the layer's outputs, hidden states first, and its pair `(MLP input, residual stream before its norm)`.
    Raises ValueError where the layer needs `position_embeddings` and has none.
    """
    taken = inspect.signature(decoder_layer.forward).parameters
    if "position_embeddings" in taken and more.get("position_embeddings") is None:
        raise ValueError(
            f"a {type(decoder_layer).__name__} of this version of transformers takes position_embeddings, which its "
            "decoder makes: give position_embeddings=model.model.rotary_emb(hidden_states, position_ids)"
        )
    given = {
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        next((name for name in ("past_key_value", *NAMES) if name in taken), "past_key_value"): past_key_value,
        "output_attentions": output_attentions or None,
        "use_cache": use_cache or None,
        "padding_mask": padding_mask,
    }
    with pre_mlp_states_of_layer(decoder_layer) as pairs:
        output = decoder_layer(hidden_states, **_without_none(given), **more)
    return output if isinstance(output, tuple) else (output,), pairs[-1]


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
