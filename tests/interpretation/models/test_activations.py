"""Captured states are those of a plain forward, for every family and only as many as asked for."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny_models import available_families, tiny_model
from transformers.interpretation.models.activations import capture

IDS = torch.tensor([[5, 9, 17, 33, 65, 9, 12]])


@pytest.fixture(scope="module")
def llama():
    return tiny_model()


@pytest.mark.parametrize("family", available_families(), ids=lambda family: family.model_type)
def test_equals_the_hidden_states_of_a_plain_forward(family):
    model = tiny_model(family.model_type)
    n_layers = model.config.num_hidden_layers
    layers, tokens = [n_layers, 0, 2, 1, 2], [6, 0, 3]
    with torch.no_grad():
        expected = model(IDS, output_hidden_states=True).hidden_states
    states = capture(model, IDS, layers, tokens)
    assert states.shape == (5, 3, expected[0].shape[-1])
    for row, layer in zip(states, layers):
        torch.testing.assert_close(row, expected[layer][0, tokens], rtol=0, atol=1e-6)


def test_negative_indices_count_from_the_end(llama):
    states = capture(llama, IDS, [-1, -5], [-1])
    assert torch.equal(states, capture(llama, IDS, [4, 0], [6]))


def test_all_layers_at_once_equal_one_by_one(llama):
    together = capture(llama, IDS, range(5), range(7))
    for layer in range(5):
        assert torch.equal(together[layer : layer + 1], capture(llama, IDS, [layer], range(7)))


def test_a_range_is_the_mean_over_its_positions(llama):
    each = capture(llama, IDS, [1, 4], range(7))
    found = capture(llama, IDS, [1, 4], [2, range(1, 4), -1, range(0, 7, 3), range(5, 2, -1), range(6, 7)])
    spans = [[2], [1, 2, 3], [6], [0, 3, 6], [3, 4, 5], [6]]
    expected = torch.stack([each[:, span].mean(dim=1) for span in spans], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_means_are_rounded_once():
    model = tiny_model().to(torch.bfloat16)
    each = capture(model, IDS, [2], range(7))[0]
    assert torch.equal(capture(model, IDS, [2], [range(7)])[0, 0], each.double().mean(dim=0).float().bfloat16())


def test_result_has_the_dtype_of_the_model_and_no_gradient():
    model = tiny_model().to(torch.bfloat16)
    states = capture(model, IDS, [1, 4], [0, 1])
    assert states.dtype == torch.bfloat16
    assert states.device.type == "cpu"
    assert not states.requires_grad
    (states.float() * torch.ones(1, requires_grad=True)).sum().backward()  # usable where gradients are wanted


def test_the_output_matrix_takes_no_part(llama):
    calls = []
    handle = llama.lm_head.register_forward_hook(lambda *_: calls.append(1))
    try:
        capture(llama, IDS, [0, 4], [0])
    finally:
        handle.remove()
    assert calls == []


def test_no_hooks_stay_behind_even_after_an_error(llama):
    def hooks():
        return sum(len(module._forward_pre_hooks) for module in llama.model.layers)

    before = hooks()
    capture(llama, IDS, [0, 1], [0])
    with pytest.raises(Exception):  # noqa: B017 – whatever the version's embedding raises
        capture(llama, torch.tensor([[10**6]]), [0, 1], [0])
    assert hooks() == before


def test_a_pass_of_another_thread_is_not_taken_for_ours(llama):
    """Another thread runs the same model on another prompt just after our pass has reached layer 1."""
    expected = capture(llama, IDS, [1, 2], [0])

    def run_another_prompt(*_):
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: llama(IDS.flip(1)))
            thread.start()
            thread.join()

    handle = llama.model.layers[1].register_forward_hook(run_another_prompt)
    try:
        assert torch.equal(capture(llama, IDS, [1, 2], [0]), expected)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("input_ids", "layers", "tokens", "message"),
    [
        (IDS, [5], [0], r"layer 5 is out of range: there are 5, 0 to 4"),
        (IDS, [0, -6], [0], r"layer -6 is out of range"),
        (IDS, [0], [7], r"token 7 is out of range: there are 7, 0 to 6"),
        (IDS, [0], [range(5, 8)], r"range\(5, 8\) is no span of tokens: there are 7, 0 to 6"),
        (IDS, [0], [range(-2, 1)], r"is no span of tokens"),
        (IDS, [0], [range(3, 3)], r"is no span of tokens"),
        (IDS, [], [0], "at least one layer"),
        (IDS[0], [0], [0], r"shape \[1, sequence\], not \[7\]"),
        (IDS.repeat(2, 1), [0], [0], r"not \[2, 7\]"),
        (IDS[:, :0], [0], [0], r"not \[1, 0\]"),
    ],
)
def test_what_cannot_be_captured_is_refused(llama, input_ids, layers, tokens, message):
    with pytest.raises(ValueError, match=message):
        capture(llama, input_ids, layers, tokens)


def test_a_layer_that_never_runs_is_an_error_and_not_silence(llama, monkeypatch):
    monkeypatch.setattr(llama.model.layers[2], "_call_impl", llama.model.layers[2].forward)  # as if compiled: no hooks
    with pytest.raises(RuntimeError, match=r"layers \[2\] were not seen"):
        capture(llama, IDS, [1, 2], [0])
