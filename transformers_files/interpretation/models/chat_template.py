"""How a text becomes a user's turn of a chat model, and token ids."""

from __future__ import annotations

import inspect
import warnings
from datetime import datetime
from typing import Any

from .tokenizer import Tokenizer

_PROBE = "\ufffe"
"""Stands for any text while a chat template is tried. It is no character, so no template has it or changes it."""
_TIME_CODES = "aAbBcdfGHIjmMpSuUVwWxXyYzZ"
"""Of `strftime`."""


class ChatTemplateError(ValueError):
    """A chat template that fails, or that loses or changes the text that it is given."""


def has_chat_template(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer itself comes with a chat template; the class-wide ones of old versions do not count."""
    return bool(getattr(tokenizer, "chat_template", None))


def user_turn(tokenizer: Tokenizer, text: str, *, now: datetime | None = None) -> str:
    """`text` as a user's turn, ready for the reply: by the tokenizer's chat template, else `[INST] … [/INST]`.

    now: the time by which a template that writes the date writes it; None: that of the call.

    Raises ChatTemplateError unless the template writes the text as it does any other, white space apart.
    """
    if not has_chat_template(tokenizer):
        return f"[INST] {text} [/INST]"
    now = datetime.now() if now is None else now
    failure = ""
    for content in (_plain, _in_parts):
        try:
            frame = _apply(tokenizer, content(_PROBE), now)
            turn = _apply(tokenizer, content(text), now) if _PROBE in frame else ""
        except Exception as error:  # a template is the model's own program: it raises whatever it likes
            failure = failure or f" ({_in_short(error)})"
            continue
        if _PROBE not in frame:
            continue
        if not _holds(turn, frame, text):
            raise ChatTemplateError(f"the chat template changes the text {_in_short(repr(text))}")
        return turn
    raise ChatTemplateError(f"the chat template {'fails' if failure else 'drops what the user says'}{failure}")


def read_prompt(
    tokenizer: Tokenizer, prompt: str, *, raw: bool, now: datetime | None = None
) -> tuple[str, tuple[int, ...]]:
    """The text that a model sees of a prompt, and its token ids: as it is (`raw`), or as a `user_turn`.

    Never with a second beginning-of-sequence token, nor with an end of sequence that the tokenizer appends.
    """
    text = prompt if raw else user_turn(tokenizer, prompt, now=now)
    special = wants_special_tokens(tokenizer, text, templated=not raw and has_chat_template(tokenizer))
    ids = tokenizer.encode(text, add_special_tokens=special)
    return text, tuple(ids[: len(ids) - appended_tokens(tokenizer)] if special else ids)


def encode_prompt(tokenizer: Tokenizer, prompt: str, *, raw: bool) -> list[int]:
    """Token ids of a prompt, as `read_prompt` gives them."""
    return list(read_prompt(tokenizer, prompt, raw=raw)[1])


def wants_special_tokens(tokenizer: Tokenizer, text: str, *, templated: bool) -> bool:
    """Whether the tokenizer should add its special tokens: a template has written them already, and so may the user."""
    bos = getattr(tokenizer, "bos_token", None)
    return not templated and not (bos and text.startswith(bos))


def appended_tokens(tokenizer: Tokenizer) -> int:
    """How many special tokens the tokenizer puts behind every text. Warns if there are any.

    They end the text, and whatever a model says after the end is about another one.
    """
    whole, plain = (tokenizer.encode("x", add_special_tokens=special) for special in (True, False))
    for start in range(len(whole) - len(plain), -1, -1):
        end = start + len(plain)
        if whole[start:end] == plain:
            if whole[end:]:
                ends = " ".join(tokenizer.convert_ids_to_tokens(list(whole[end:])))
                # At this place, whoever asks: so Python shows it once.
                warnings.warn(f"the tokenizer ends every text with {ends}; prompts go without it", stacklevel=1)
            return len(whole) - end
    return 0


def _holds(turn: str, frame: str, text: str) -> bool:
    """Whether a turn is the frame with the text in it. Templates may trim it, and say how it is spaced."""
    expected = (frame.replace(_PROBE, form) for form in (text, text.strip(), text.lstrip(), text.rstrip()))
    return any(turn.split() == one.split() for one in expected)


def _plain(text: str) -> str:
    return text


def _in_parts(text: str) -> list[dict[str, str]]:
    """As templates of models that take pictures, too, want it."""
    return [{"type": "text", "text": text}]


def _apply(tokenizer: Tokenizer, content: str | list[dict[str, str]], now: datetime) -> str:
    messages = [{"role": "user", "content": content}]
    template = default_template(tokenizer)
    options: dict[str, Any] = {"chat_template": _stopped_clock(tokenizer, template, now) + template}
    if "add_generation_prompt" in inspect.signature(tokenizer.apply_chat_template).parameters:
        options["add_generation_prompt"] = True
    else:  # 4.34 ignores the argument, but renders a template that sets the variable itself
        options["chat_template"] = "{% set add_generation_prompt = true %}" + options["chat_template"]
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def default_template(tokenizer: Tokenizer) -> str:
    """A tokenizer may have several by name."""
    template = tokenizer.chat_template
    if isinstance(template, str):
        return template
    if "default" not in template:
        raise ValueError(f"of those that are named {', '.join(template)} none is the default")
    return template["default"]


def _stopped_clock(tokenizer: Tokenizer, template: str, now: datetime) -> str:
    """What to write before a template that asks for the time; nothing where the library has none to tell.

    The library takes no functions along with a chat, so it is a macro of the template's own language.
    """
    if "strftime_now" not in template:
        return ""
    question = "{{ strftime_now is defined }}"
    told = tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=question, tokenize=False)
    if told != "True":
        return ""
    codes = [f"%{flag}{code}" for flag in ("", "-") for code in _TIME_CODES]
    told_times = "".join(f" | replace({code!r}, {now.strftime(code)!r})" for code in codes)
    return "{% macro strftime_now(format) %}{{ format" + told_times + " }}{% endmacro %}"


def _in_short(value: Any) -> str:
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 200 else f"{text[:160]}… ({len(text)} characters)"
