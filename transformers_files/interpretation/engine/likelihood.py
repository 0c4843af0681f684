"""How probable texts are behind an interpretation prompt with vectors in it; gradients flow back into the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.families import decoder_layers
from ..models.forward import input_device
from ..models.layer_inputs import head, hidden_size
from ..models.thread_hooks import input_hook
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..surgery.hooks import plan_surgery, surgery


def token_log_probabilities(
    model: nn.Module, prompt: InterpretationPrompt, infos: Sequence[dict[Any, Any]], texts: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Of each token of each text, `[tokens]`, float32, in nats, by one pass over all of them.

    infos: for each text the row of `insert_info` that goes into the prompt. texts: token ids, one at least; shorter
    ones are filled up behind, which nothing before can see.
    """
    before, longest = list(prompt.input_ids), max(map(len, texts))
    rows = torch.tensor([[*before, *text, *[0] * (longest - len(text))] for text in texts], device=input_device(model))
    plan = plan_surgery(
        infos,
        n_layers=len(decoder_layers(model)),
        hidden_size=hidden_size(model),
        batch_size=len(texts),
        prompt_length=rows.shape[1],
    )
    assert plan is not None  # every row inserts
    read = slice(len(before) - 1, -1)
    with surgery(model, plan), input_hook(head(model), lambda hidden: hidden[:, read]):
        logits = model(input_ids=rows, use_cache=False, return_dict=True).logits
    each = logits.float().log_softmax(-1).gather(2, rows[:, len(before) :, None].to(logits.device))[..., 0]
    return [row[: len(text)] for row, text in zip(each, texts)]
