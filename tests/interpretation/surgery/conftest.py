"""The model and the three rows that the tests of hooks run."""

from __future__ import annotations

import pytest
import torch
from three_rows import PROMPT
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def input_ids():
    return torch.randint(3, 128, (3, PROMPT), generator=torch.Generator().manual_seed(1))
