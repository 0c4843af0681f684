"""Functions of torch answered by others: inside the context, in this thread, and only where they want to."""

from __future__ import annotations

import threading

import torch
from transformers.interpretation.answers import Answers


def negative(*values):
    return -values[0] if len(values) == 1 else NotImplemented


def test_only_inside_and_only_where_there_is_an_answer():
    one, two = torch.ones(2), torch.full((2,), 2.0)
    with Answers({torch.add: negative, torch.exp: negative}):
        assert torch.equal(torch.exp(one), -one)
        assert torch.equal(torch.add(one, two), one + 2)
    assert torch.equal(torch.exp(one), one.exp())


def test_other_threads_are_left_alone():
    found = []
    with Answers({torch.exp: negative}):
        thread = threading.Thread(target=lambda: found.append(torch.exp(torch.zeros(1)).item()))
        thread.start()
        thread.join()
    assert found == [1.0]
