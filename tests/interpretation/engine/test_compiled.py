"""Compiled models, whole or in part: the engine, the methods and `capture` give what the plain model gives."""

from __future__ import annotations

import pytest
import torch
from decode_reference import PROMPT, SETTINGS, vectors
from tiny_models import tiny_model
from transformers.interpretation import capture
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.kernels.switch import is_compiled

IDS = torch.arange(5, 12)[None]


def whole(model, backend):
    return torch.compile(model, backend=backend)


def in_place(model, backend):
    model.compile(backend=backend)
    return model


def forward(model, backend):
    model.forward = torch.compile(model.forward, backend=backend)
    return model


def decoder(model, backend):
    model.model = torch.compile(model.model, backend=backend)
    return model


def results(model):
    """Token ids of the engine, then tensors of `capture` and of the two methods."""
    one = vectors(model, 3)
    chunk = interpret_chunk(model, [Cell(vector, PROMPT) for vector in one], SETTINGS, batch_size=8)
    info = [{1: ([-1], one[0][None, None]), "replacing_mode": "normalized", "overlay_strength": 1.0}]
    with torch.no_grad():
        logits = model.forward_interpret(input_ids=IDS, insert_info=info).logits
        tokens = model.generate_interpret(input_ids=IDS, insert_info=info, max_new_tokens=4, do_sample=False)
    return [text.token_ids for text in chunk], capture(model, IDS, [0, 2, 4], [1, -1]), logits, tokens


@pytest.mark.filterwarnings("error:.*read again for every token")
@pytest.mark.parametrize(
    ("compiled", "backend"), [(whole, "aot_eager"), (in_place, "eager"), (forward, "eager"), (decoder, "eager")]
)
def test_a_compiled_model_gives_what_the_plain_one_gives(compiled, backend):
    plain = tiny_model("llama")
    expected = results(plain)
    assert not is_compiled(plain)
    torch._dynamo.reset()
    model = compiled(tiny_model("llama"), backend)
    assert is_compiled(model)
    with torch.no_grad():
        model(input_ids=IDS)  # compiled without hooks, before any are set
    found = results(model)
    assert found[0] == expected[0]
    for tensor, other in zip(found[1:], expected[1:]):
        torch.testing.assert_close(tensor, other, atol=1e-5, rtol=1e-5)
