"""How a text becomes a user's turn of a chat model, and token ids."""

from __future__ import annotations

import inspect
from typing import Any


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer itself comes with a chat template; the class-wide ones of old versions do not count."""
    return bool(getattr(tokenizer, "chat_template", None))


def user_turn(tokenizer: Any, text: str) -> str:
    """`text` as a user's turn, ready for the reply: by the tokenizer's chat template, else `[INST] … [/INST]`."""
    if not has_chat_template(tokenizer):
        return f"[INST] {text} [/INST]"
    messages = [{"role": "user", "content": text}]
    if "add_generation_prompt" in inspect.signature(tokenizer.apply_chat_template).parameters:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # 4.34 ignores the argument, but renders a template that sets the variable itself.
    template = "{% set add_generation_prompt = true %}" + tokenizer.chat_template
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)


def encode_prompt(tokenizer: Any, prompt: str, *, raw: bool) -> list[int]:
    """Token ids of a prompt: as it is (`raw`), or as a user's turn. Never with a second beginning-of-sequence token."""
    text = prompt if raw else user_turn(tokenizer, prompt)
    special = wants_special_tokens(tokenizer, text, templated=not raw and has_chat_template(tokenizer))
    return list(tokenizer.encode(text, add_special_tokens=special))


def wants_special_tokens(tokenizer: Any, text: str, *, templated: bool) -> bool:
    """Whether the tokenizer should add its special tokens: a template has written them already, and so may the user."""
    bos = getattr(tokenizer, "bos_token", None)
    return not templated and not (bos and text.startswith(bos))
