"""Ids beyond the tokenizer, which padded vocabularies have, are named and never lost, whatever the tokenizer does."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers import BertGenerationTokenizer, ByT5Tokenizer
from transformers.interpretation import interpret, read_csv, read_parquet
from transformers.interpretation.models.token_text import lacking, text_of, token_pieces, token_strings
from transformers.interpretation.prompts.stop import Stop

PADDED = VOCABULARY + 5


@pytest.fixture(scope="module")
def slow_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> BertGenerationTokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    text = folder / "text.txt"
    text.write_text("the cat sat on the mat\nthe dog ate the cat\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=16, minloglevel=2
    )
    return BertGenerationTokenizer(str(Path(folder, "spiece.model")))


def test_a_fast_tokenizer():
    tokenizer = tiny_tokenizer()
    ids = [*tokenizer.encode("ab", add_special_tokens=False), PADDED, *tokenizer.encode("c", add_special_tokens=False)]
    assert token_strings(tokenizer, ids) == ("a", "b", f"<id {PADDED}>", "c")
    assert token_pieces(tokenizer, ids) == ("a", "b", f"<id {PADDED}>", "c")
    assert text_of(tokenizer, ids) == f"ab<id {PADDED}>c"


def test_a_slow_sentencepiece_tokenizer(slow_sentencepiece: BertGenerationTokenizer):
    ids = slow_sentencepiece.encode("the cat", add_special_tokens=False)
    beyond = len(slow_sentencepiece) + 3
    assert lacking(slow_sentencepiece, [*ids, beyond]) == {beyond}
    assert token_strings(slow_sentencepiece, [beyond, *ids])[0] == f"<id {beyond}>"
    assert token_strings(slow_sentencepiece, ids) == tuple(slow_sentencepiece.convert_ids_to_tokens(ids))
    assert text_of(slow_sentencepiece, [*ids, beyond]) == f"the cat<id {beyond}>"


def test_bytes_of_t5():
    tokenizer = ByT5Tokenizer()
    beyond = len(tokenizer) + 10
    ids = [*tokenizer.encode("é", add_special_tokens=False), beyond]
    assert token_strings(tokenizer, ids)[-1] == f"<id {beyond}>"
    assert token_pieces(tokenizer, ids) == ("", "é", f"<id {beyond}>")


def test_a_stop_is_found_behind_such_an_id():
    tokenizer = tiny_tokenizer()
    stop = Stop("b", tokenizer)
    assert stop.reached_by([PADDED, *tokenizer.encode("ab", add_special_tokens=False)]) == "stop"


def test_ids_of_the_tokenizer_stay_as_they_are():
    tokenizer = tiny_tokenizer()
    everything = list(range(VOCABULARY))
    assert not lacking(tokenizer, everything)
    assert token_strings(tokenizer, everything) == tuple(tokenizer.convert_ids_to_tokens(everything))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_a_padded_vocabulary_is_whole(suffix: str, tmp_path: Path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    model = tiny_model(vocab_size=PADDED + 10)
    bias = torch.zeros(PADDED + 10)
    bias[PADDED] = 1e4
    model.lm_head.bias = torch.nn.Parameter(bias)  # it says nothing else
    found = interpret(model, tiny_tokenizer(), "ab", layers=[1], max_new_tokens=2, prompt_output_tokens=1, batch_size=4)
    named = f"<id {PADDED}>"
    file = tmp_path / f"table{suffix}"
    found.to_csv(file) if suffix == ".csv" else found.to_parquet(file)
    table = (read_csv if suffix == ".csv" else read_parquet)(file)
    assert table[0].prompt_token_list[-1] == named
    assert table[0].prompt_output == named
    assert {record.interpretation_text for record in table} == {2 * named}
