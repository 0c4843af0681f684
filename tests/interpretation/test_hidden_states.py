"""Hidden embeddings as users ask for them, against plain passes over each text alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from transformers.interpretation import capture

IDS = torch.arange(5, 11)[None]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@torch.no_grad()
def plain(model, ids):
    """[layers, sequence, hidden]"""
    return torch.stack(model(ids.reshape(1, -1), output_hidden_states=True).hidden_states)[:, 0]


@pytest.mark.parametrize(
    ("layers", "tokens", "rows", "columns"),
    [
        ([2], 3, [2], [3]),
        (2, [3], [2], [3]),
        ([4, 0], [-1, 2], [4, 0], [5, 2]),
        ("1:3", "last", [1, 2], [5]),
        (slice(1, 3), slice(-2, None), [1, 2], [4, 5]),
        ("resid_post.1", 0, [2], [0]),
        (None, "0,2", [0, 1, 2, 3, 4], [0, 2]),
        (torch.tensor([3, 1]), torch.tensor([2]), [3, 1], [2]),
    ],
)
def test_layers_and_tokens_are_chosen_as_in_interpret(model, layers, tokens, rows, columns):
    assert torch.equal(capture(model, IDS, layers, tokens), plain(model, IDS)[rows][:, columns])


def test_means(model):
    expected = plain(model, IDS)[2][2:5].mean(0)
    for tokens in ("mean(2:5)", [range(2, 5)]):
        assert torch.allclose(capture(model, IDS, 2, tokens)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_padded_batch_are_counted_without_their_padding(model, side):
    texts = [torch.arange(5, 11), torch.arange(20, 23), torch.arange(40, 45)]
    ids, mask = torch.zeros(3, 6, dtype=torch.long), torch.zeros(3, 6, dtype=torch.long)
    for row, text in enumerate(texts):
        columns = slice(6 - len(text), 6) if side == "left" else slice(len(text))
        ids[row, columns], mask[row, columns] = text, 1
    found = capture(model, ids, [1, 3], [0, -1], attention_mask=mask)
    assert found.shape == (3, 2, 2, 32)
    for row, text in enumerate(texts):
        assert torch.equal(found[row], plain(model, text)[[1, 3]][:, [0, -1]])


def test_a_batch_without_a_mask(model):
    ids = torch.arange(5, 17).reshape(2, 6)
    found = capture(model, ids, 2, "last")
    assert torch.equal(found, torch.stack([plain(model, row)[[2]][:, [-1]] for row in ids]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 9}, "layers: 9 is out of range"),
        ({"tokens": 6}, "tokens, row 0: 6 is out of range"),
        ({"tokens": "segment(1:3)"}, r"segment\(1:3\) is several embeddings"),
        ({"layers": "resid_post.3"}, "which is no hidden state"),
        ({"layers": "resid_post.1", "place": "mlp_output"}, "names of layers are of the residual stream"),
        ({"input_ids": torch.zeros(1, 1, 3, dtype=torch.long)}, r"not \[1, 1, 3\]"),
        ({"attention_mask": torch.ones(1, 5)}, r"attention_mask has shape \[1, 5\], input_ids \[1, 6\]"),
        (
            {
                "input_ids": IDS.expand(2, 6),
                "attention_mask": torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]]),
                "tokens": "all",
            },
            "select 2 to 6 of the rows",
        ),
    ],
)
def test_what_there_is_not_is_named(model, changes, message):
    with pytest.raises(ValueError, match=message):
        capture(**{"model": model, "input_ids": IDS, "layers": [1], "tokens": [0]} | changes)
