"""Labelled data → vectors of the model, for the programs that train and measure readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.measured_model import Loaded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.interpretation.vectors.labelled import Labelled


def labelled_vectors(loaded: Loaded, table: Labelled, layer: int | None, *, raw: bool) -> Tensor:
    """`[n, hidden]`, float32: of the table, or the hidden states of its prompts' last tokens. Raises ValueError."""
    from tqdm import tqdm
    from transformers.interpretation.measures import last_token_states
    from transformers.interpretation.models.layer_inputs import hidden_size

    if table.vectors is not None:
        if (found := table.vectors.shape[1]) != (expected := hidden_size(loaded.model)):
            raise ValueError(f"found vectors of {found} numbers, expected the model's hidden size {expected}")
        return table.vectors
    if layer is None:
        raise ValueError("prompts are read at a layer: give --layer")
    assert table.prompts is not None  # a table has one or the other
    with tqdm(total=len(table.prompts), unit="prompt", leave=False) as bar:
        states = last_token_states(
            loaded.model, loaded.tokenizer, table.prompts, [layer], raw=raw, on_prompt=bar.update
        )
    return states[:, 0].float()
