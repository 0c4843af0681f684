"""What is held at once depends on neither the number of cells nor the layers of a long prompt."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import pytest
import torch
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.models.activations import capture
from transformers.interpretation.prompts.examples import Example
from transformers.interpretation.runs.grid import Plan, Source
from transformers.interpretation.runs.preparation import prepare
from transformers.interpretation.runs.request import RunRequest
from transformers.interpretation.runs.runner import run
from transformers.interpretation.runs.source_activations import SourceActivations, continue_greedily
from transformers.interpretation.runs.source_model import SourceModel

LONG = 700
"""Tokens of a prompt; how many does not matter."""


@pytest.fixture(scope="module")
def llama():
    return tiny_model(vocab_size=VOCABULARY, num_hidden_layers=8, max_position_embeddings=1024)


def watch(model, sizes, alive):
    """Note, before each layer, how many outputs of earlier ones still exist; and for how many positions logits are."""
    outputs: list[weakref.ref] = []

    def before(module, args, kwargs):
        alive.append(sum(output() is not None for output in outputs))

    def after(module, args, output):
        outputs.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in model.model.layers]
    handles += [layer.register_forward_hook(after) for layer in model.model.layers]
    handles.append(model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape[1])))
    return handles


def test_a_long_prompt_is_read_with_the_states_of_one_layer_at_a_time(llama):
    sizes, alive = [], []
    handles = watch(llama, sizes, alive)
    try:
        output = continue_greedily(llama, list(range(3, 203)) * 3, 2)
        capture(llama, torch.arange(LONG)[None] % VOCABULARY, range(9), [0, -1])
    finally:
        for handle in handles:
            handle.remove()
    assert len(output) == 2
    assert sizes == [1, 1], "logits at the last position alone"
    assert len(alive) == 3 * 8
    assert max(alive) <= 2, "what goes into a layer and what came out of the one before it"


def test_states_that_are_kept_are_those_of_the_tokens_asked_for(llama):
    held = 3 * 4 * 32 * 2  # of three tokens, those of two layers
    source = Source(Example("long_1", "x"), "x", tuple(t % VOCABULARY for t in range(LONG)), (0, 5, LONG - 1))
    plan = Plan((source,), (), tuple(range(9)), 0, 1, captured_bytes=held)
    reader = SourceActivations(SourceModel(llama, tiny_tokenizer()), source, plan)
    for layer in range(9):
        vectors = reader.vectors(layer, 5)
        sizes = {state.data_ptr(): state.untyped_storage().nbytes() for state in reader._block.values()}
        assert max(sizes.values()) <= held
        assert len(reader._block) <= 2
        assert vectors.untyped_storage().nbytes() == vectors.numel() * 4 == 4 * 32


def test_memory_does_not_grow_with_the_cells(tmp_path):
    """Python's own memory, and the number of tensors, early and late in a run."""
    model = tiny_model(vocab_size=VOCABULARY, num_hidden_layers=2)
    request = RunRequest(
        model=str(write_tiny_folder(tmp_path / "model", model=model)),
        examples=write_json(tmp_path / "e.json", {"examples": [{"prompt": f"{n:04}", "raw": True} for n in range(80)]}),
        output=tmp_path / "out.csv",
        interpretation_prompts=(str(write_json(tmp_path / "p.json", SHORT_PROMPT)),),
        insert_layer=1,
        max_new_tokens=2,
        prompt_output_tokens=0,
        batch_size=16,
        dtype="float32",
        device="cpu",
        chunk_cells=16,
    )
    prepared = prepare(request)
    assert prepared.plan.n_chunks == 60
    held = []
    tracemalloc.start()
    try:
        for chunks, _ in enumerate(run(prepared)):
            if chunks in (22, 59):  # by the first, whatever is made once has been
                gc.collect()
                tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
                held.append((tracemalloc.get_traced_memory()[0], tensors, request.output.stat().st_size))
    finally:
        tracemalloc.stop()
    (early, few, begun), (late, many, written) = held
    assert written - begun > 80_000
    assert late - early < 0.8 * (written - begun), "less than the rows of meanwhile, let alone their records"
    assert many <= few + 5
