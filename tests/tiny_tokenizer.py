"""A tokenizer that needs no download: one token per byte, three special tokens, a chat template on request."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 259
SPECIAL = ["<pad>", "<s>", "</s>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ':' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}"
)


def tiny_tokenizer(*, chat: bool = False, backwards: bool = False) -> PreTrainedTokenizerFast:
    """Ids 0-2 are special, as in `tiny_models`; the others are bytes, in the order of their raw token strings.

    backwards: in the reverse of that order.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=backwards)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.add_special_tokens(SPECIAL)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE if chat else None,
        model_input_names=["input_ids", "attention_mask"],
    )
