"""What is promised to callers within a fork, asyncio, autocast or inference mode."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import (
    InterpretationPrompt,
    capture,
    fit_affine,
    interpret,
    interpret_vectors,
    sweep_layers,
)
from transformers.interpretation.prompts.examples import Example

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="short")
IDS = torch.tensor([[5, 9, 17, 33]])
TEXTS = ["ab cd", "Hello"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def interpreted(model, text="Hello"):
    options = {"interpretation_prompt": PROMPT, "raw": True, "max_new_tokens": 3, "batch_size": 8}
    return list(interpret(model, TOKENIZER, text, layers="0,2", **options))


FORK = """
import os, pickle, sys
import torch
from test_promises import interpreted
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY

torch.set_num_threads(1)
model = tiny_model(vocab_size=VOCABULARY)
before = interpreted(model)
children = []
for number in range(2):
    if not (child := os.fork()):
        with open(f"{sys.argv[1]}/{number}", "wb") as file:
            pickle.dump(interpreted(model), file)
        os._exit(0)
    children.append(child)
beside = interpreted(model)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
with open(f"{sys.argv[1]}/parent", "wb") as file:
    pickle.dump([before, beside], file)
"""


def test_forked_processes_go_on_with_the_model(tmp_path):
    """Of one thread each: threads of the parent's libraries do not exist in a child."""
    here = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=120)
    before, beside = pickle.loads((tmp_path / "parent").read_bytes())
    assert before == beside
    for number in range(2):
        assert pickle.loads((tmp_path / str(number)).read_bytes()) == before


def test_tasks_of_asyncio(model):
    """Each in a worker thread, while the loop runs the plain model; one that is called in the loop itself blocks it."""
    texts = ["Hello", "Hi", "abc"]
    quiet = [interpreted(model, text) for text in texts]
    with torch.no_grad():
        plain = model(IDS).logits

    async def all_at_once():
        tasks = [asyncio.create_task(asyncio.to_thread(interpreted, model, text)) for text in texts]
        passes = 0
        while not all(task.done() for task in tasks):
            with torch.no_grad():
                assert torch.equal(model(IDS).logits, plain)
            passes += 1
            await asyncio.sleep(0)
        return passes, [task.result() for task in tasks]

    passes, found = asyncio.run(all_at_once())
    assert passes > 0
    assert found == quiet


def test_under_inference_mode(model):
    quiet, states = interpreted(model), capture(model, IDS, [0, 4], [1, 3])
    with torch.inference_mode():
        assert interpreted(model) == quiet
        vectors = capture(model, IDS, [0, 4], [1, 3])
        assert torch.equal(vectors, states)
        inside = list(interpret_vectors(model, TOKENIZER, vectors[0], interpretation_prompt=PROMPT, max_new_tokens=2))
    outside = list(interpret_vectors(model, TOKENIZER, vectors[0], interpretation_prompt=PROMPT, max_new_tokens=2))
    assert inside == outside  # a tensor of inference mode can be inserted afterwards


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_gradients_are_neither_needed_nor_left(model, mode):
    quiet = interpreted(model)
    with mode():
        assert interpreted(model) == quiet
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_under_autocast_the_engine_is_generate_under_autocast(model):
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))  # no token leads by less than 0.1
    info = {1: (list(PROMPT.insert_locations), vector.expand(1, 2, -1)), "overlay_strength": 1.0}
    ids = torch.tensor([PROMPT.input_ids])
    options = {"interpretation_prompt": PROMPT, "max_new_tokens": 6}
    surgery = {"insert_info": [info | {"replacing_mode": "normalized"}]}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        generated = model.generate_interpret(ids, max_new_tokens=6, do_sample=False, **surgery)
        logits = model.forward_interpret(ids, **surgery).logits
        (record,) = interpret_vectors(model, TOKENIZER, vector, insert_layer=1, guidance=0, **options)
    plain = model.forward_interpret(ids, **surgery).logits
    assert not torch.equal(logits.float(), plain.float())  # autocast was on
    assert list(record.interpretation) == generated[0, ids.shape[1] :].tolist()
    assert record.interpretation_prob[0] == pytest.approx(float(logits[0, -1].float().softmax(-1).max()), rel=0.05)


@pytest.fixture
def default_device():
    """Set one: `meta` holds no numbers, so whatever is made there by mistake shows."""
    yield torch.set_default_device
    torch.set_default_device("cpu")


def test_a_default_device_of_torch_changes_nothing(model, default_device):
    vectors = torch.randn(2, model.config.hidden_size)
    vector_options = {"interpretation_prompt": PROMPT, "max_new_tokens": 3, "strength": "auto"}
    swept = {"layers": "1,2", "insert_layers": "0,1", "interpretation_prompt": PROMPT, "max_new_tokens": 2}
    info = {1: ([-1], vectors[0]), "replacing_mode": "norm_matched", "overlay_strength": 0.5}

    def everything():
        return {
            "interpret": interpreted(model),
            "interpret_vectors": list(interpret_vectors(model, TOKENIZER, vectors, **vector_options)),
            "samples": list(interpret_vectors(model, TOKENIZER, vectors, samples=2, interpretation_prompt=PROMPT)),
            "capture": capture(model, IDS, [1, 2], [0, 3]).tolist(),
            "fit_affine": fit_affine(
                model, TOKENIZER, TEXTS, source_layer=2, target_layer=1, ridge=0.1
            ).weight.tolist(),
            "sweep_layers": list(sweep_layers(model, TOKENIZER, [Example("1", TEXTS[0])], **swept)),
            "forward_interpret": model.forward_interpret(input_ids=IDS, insert_info=[info]).logits.tolist(),
        }

    quiet = everything()
    default_device("meta")
    assert everything() == quiet
