"""How often the host waits for the device, counted by `without_numbers` on a device whose tensors hold no numbers."""

from __future__ import annotations

import pytest
import torch
from decode_reference import PROMPT
from tiny_models import tiny_model
from transformers.interpretation.engine import decode, insertion
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk
from transformers.interpretation.engine.sampling import Sampling
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models import activations, beginning
from transformers.interpretation.models.activations import capture
from transformers.interpretation.models.forward import _best_of_all, _best_of_few
from transformers.interpretation.models.kv_cache import cache_beside, cache_in, empty_cache
from transformers.interpretation.surgery.hooks import _offset, plan_surgery, surgery
from without_numbers import META, Waits

NEW = 12
CELLS = 3
WAYS = {
    "greedy": {},
    "guided": {"guidance": 0.5},
    "sampled": {"sampling": Sampling(1, temperature=0.8, top_p=0.9)},
    "sampled under guidance": {"sampling": Sampling(1), "guidance": 0.5},
    "norm matched": {"replacing_mode": "norm_matched_addition"},
}


@pytest.fixture
def model(monkeypatch):
    """A model on the device without numbers, and its input, too: "meta" otherwise means offloaded weights."""
    for module in (decode, insertion, beginning):
        monkeypatch.setattr(module, "input_device", lambda model: META)
    monkeypatch.setattr(activations, "_beside_embeddings", lambda model, ids: ids.to(META, non_blocking=True))
    return tiny_model(eos_token_id=None, pad_token_id=None, bos_token_id=None).to(META)


def cells():
    rows = torch.randn(CELLS, 32, generator=torch.Generator().manual_seed(0))
    return [Cell(row, PROMPT, seed=number) for number, row in enumerate(rows)]


@pytest.mark.parametrize("way", WAYS)
def test_the_host_waits_once_a_token(model, way):
    settings = InterpretationSettings(max_new_tokens=NEW, **WAYS[way])
    with Waits() as waits:
        found = interpret_chunk(model, cells(), settings, batch_size=CELLS)
    assert [len(one.token_ids) for one in found] == [NEW] * CELLS
    assert waits.reads == NEW
    assert waits.blocking_writes == []


def test_a_step_does_not_grow_with_the_text(model):
    """As many operations and new tensors in each step, whatever the cache holds."""
    with Waits() as waits:
        interpret_chunk(model, cells(), InterpretationSettings(max_new_tokens=NEW), batch_size=CELLS)
    steps = slice(2, NEW)  # behind the prompt's pass and the step that gives each cell's text a row of its own
    assert len(set(waits.operations[steps])) == len(set(waits.allocated[steps])) == 1
    assert waits.operations[2] > waits.allocated[2] > 0


@pytest.mark.parametrize("mode", ["normalized", "norm_matched"])
@pytest.mark.parametrize("locations", [[1, 3], [2, "generated"]])
def test_surgery_does_not_wait(model, mode, locations):
    info = {
        1: (locations, torch.ones(1, 2, 32)),
        ("mlp_output", 2): ([0], torch.ones(32)),
        "overlay_strength": 0.5,
        "replacing_mode": mode,
    }
    plan = plan_surgery([info] * 2, n_layers=4, hidden_size=32, batch_size=2, prompt_length=5, generates=True)
    ids = torch.zeros(2, 5, dtype=torch.long, device=META)
    with Waits() as waits, torch.no_grad(), surgery(model, plan):
        cache = empty_cache(model)
        for columns in (ids, ids[:, :1], ids[:, :1]):
            cache = cache_in(model(columns, use_cache=True, **cache_beside(model, cache, columns)))
    assert (waits.reads, waits.blocking_writes) == (0, [])


def test_where_a_pass_begins_is_not_read_from_the_device():
    """The library gives `cache_position` beside the cache, whose length is a shape."""

    class DynamicCache:
        def get_seq_length(self):
            return 7

    position = torch.empty(1, dtype=torch.long, device=META)
    assert _offset({"past_key_values": DynamicCache(), "cache_position": position}) == 7


@pytest.mark.parametrize("place", ["residual", "mlp_input", "layer_output"])
def test_capture_waits_once(model, place):
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with Waits() as waits:
        states = capture(model, ids, [0, 1, 3, 2], [-1, 0, range(1, 3)], place)
    assert states.shape == (4, 3, 32)
    assert waits.reads == 1
    assert waits.blocking_writes == []


def test_many_states_leave_the_device_layer_by_layer(model, monkeypatch):
    monkeypatch.setattr(activations, "_HELD_ON_DEVICE", 3 * 32 * 4 * 3 - 1)  # three layers' three rows, and a byte less
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with Waits() as waits:
        assert capture(model, ids, [0, 4, 2], [-1, 0, range(1, 3)]).shape == (3, 3, 32)
    assert waits.reads == 3


@pytest.mark.parametrize("guidance", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("plausibility", [0.0, 0.1, 1.0])
def test_guidance_without_waiting_chooses_the_same(guidance, plausibility):
    """Ties, minus infinity and NaN among the logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 50, generator=generator).mul(4).round() / 2
    without = torch.randn(20, 50, generator=generator).mul(4).round() / 2
    logits[3, 7] = logits[4] = -torch.inf
    logits[5, 9] = torch.nan
    beside = torch.randint(20, (64,), generator=generator)
    given = (logits, without, beside, guidance, plausibility)
    assert torch.equal(_best_of_all(*given), _best_of_few(*given))
