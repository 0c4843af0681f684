"""How surgery learns the position of a pass from its cache."""

from __future__ import annotations

import pytest
import torch
from three_rows import HIDDEN, infos, plan_for
from transformers.interpretation.models.families import UnsupportedModelError, decoder
from transformers.interpretation.models.kv_cache import cache_beside, cache_in, cached_length
from transformers.interpretation.surgery.hooks import (
    plan_surgery,
    surgery,
)


class Cache:
    def get_seq_length(self):
        return torch.tensor(5)


PAST = {
    "none": (None, 0),
    "empty": ((), 0),
    "nothing yet": ((None, None), 0),
    "cache": (Cache(), 5),
    "pairs": (((torch.zeros(2, 4, 5, 8), torch.zeros(2, 4, 5, 8)),), 5),
    "pairs with the key's axes swapped": (((torch.zeros(8, 8, 5), torch.zeros(8, 5, 8)),), 5),
    "key and value in one": ((torch.zeros(1, 5, 16),), 5),
}


@pytest.mark.parametrize("kind", PAST)
def test_the_length_of_every_kind_of_cache(kind):
    past, length = PAST[kind]
    assert cached_length(past) == length


class Renamed(torch.nn.Module):
    """A decoder that takes its cache under a name that nobody knows."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.config, self.layers = decoder, decoder.config, decoder.layers

    def forward(self, input_ids, memory=None):
        return self.decoder(input_ids, use_cache=True, **cache_beside(self.decoder, memory, input_ids))


def test_a_cache_under_an_unknown_name_is_an_error_and_never_a_wrong_position(model, input_ids):
    renamed = Renamed(decoder(model))
    first = {0: ([0], torch.ones(1, 1, HIDDEN)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    plan = plan_surgery([first], n_layers=4, hidden_size=HIDDEN, batch_size=1, prompt_length=1, generates=True)
    with (
        pytest.raises(UnsupportedModelError, match=r"neither a cache .* nor cache_position"),
        torch.no_grad(),
        surgery(renamed, plan),
    ):
        renamed(input_ids[:1, 1:2], memory=cache_in(renamed(input_ids[:1, :1])))


def test_a_recurrent_state_is_refused_and_never_misread(model, input_ids):
    with (
        pytest.raises(UnsupportedModelError, match=r"LlamaModel continues from recurrent states \(object\).*use_cache"),
        torch.no_grad(),
        surgery(model, plan_for(infos())),
    ):
        decoder(model)(input_ids, cache_params=object(), cache_position=torch.arange(4))
