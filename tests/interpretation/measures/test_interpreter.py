"""Vectors that a mapping takes to another space first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.interpretation.mapping.affine import MappingError


def test_a_mapping_comes_before_the_insertion(interpreter):
    """Twice the vector by a map of its layer is twice the vector."""
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    mapped = replace(interpreter, mapping={2: lambda states: 2 * states})
    assert mapped(vectors, 2) == interpreter(2 * vectors, 2)
    with pytest.raises(MappingError, match="nothing for layer 3"):
        mapped(vectors, 3)
