"""One server of a tiny model for all tests of a file."""

from __future__ import annotations

import pytest
from explorer_client import Client
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.explorer import Explorer


@pytest.fixture(scope="module")
def tiny():
    """A model and its tokenizer."""
    return tiny_model(vocab_size=VOCABULARY), tiny_tokenizer(chat=True)


@pytest.fixture
def explorer(tiny):
    """A server whose memory of other tests has been cleared."""
    with Explorer(*tiny, name="tiny") as server:
        yield server


@pytest.fixture
def client(explorer):
    """A program that talks to it."""
    return Client(explorer.url)
