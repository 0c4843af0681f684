"""Functions of torch replaced by others: inside the context, in this thread, and only for calls that they accept."""

from __future__ import annotations

import threading

import pytest
import torch
from transformers.interpretation.engine.kernels.overrides import FunctionOverrides


def negative(*values):
    return -values[0] if len(values) == 1 else NotImplemented


def test_only_inside_and_only_where_there_is_an_answer():
    one, two = torch.ones(2), torch.full((2,), 2.0)
    with FunctionOverrides({torch.add: negative, torch.exp: negative}):
        assert torch.equal(torch.exp(one), -one)
        assert torch.equal(torch.add(one, two), one + 2)
    assert torch.equal(torch.exp(one), one.exp())


def test_other_threads_are_left_alone():
    found = []
    with FunctionOverrides({torch.exp: negative}):
        thread = threading.Thread(target=lambda: found.append(torch.exp(torch.zeros(1)).item()))
        thread.start()
        thread.join()
    assert found == [1.0]


def test_an_interrupt_that_loses_the_context_is_told_as_such_and_takes_no_other_with_it():
    """Torch sets a context aside while it answers; interrupted just then, torch does not put it back, or much later."""
    one, lost = torch.ones(2), FunctionOverrides({torch.add: negative, torch.sin: negative})
    with FunctionOverrides({torch.exp: negative}):
        with pytest.raises(KeyboardInterrupt), lost:
            torch.overrides._pop_mode()
            raise KeyboardInterrupt
        assert torch.equal(torch.exp(one), -one)
    assert torch.equal(torch.exp(one), one.exp())
    with lost:
        assert torch.equal(torch.sin(one), one.sin())


def test_an_interrupt_that_loses_the_only_context():
    with pytest.raises(KeyboardInterrupt), FunctionOverrides({torch.add: negative}):
        torch.overrides._pop_mode()
        raise KeyboardInterrupt
