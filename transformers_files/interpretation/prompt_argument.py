"""The interpretation prompts that a user of `interpret` gives, in whatever form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .prompts.interpretation_prompt import InterpretationPrompt, InterpretationPromptSpec
from .prompts.questions import ask
from .prompts.spec_files import find_spec
from .selfie.interpreting import InterpretationPrompt as SelfiePrompt

Prompt = str | InterpretationPrompt | InterpretationPromptSpec | SelfiePrompt | Sequence[str | int]
"""A built-in name or the path of a JSON file; a prompt, of selfie too; its spec; pieces of text and placeholders."""


def prompts_of(
    given: Prompt | Sequence[Prompt], question: str | Sequence[str] | None = None
) -> list[InterpretationPrompt | InterpretationPromptSpec]:
    """One prompt or several, each with every question. Raises ValueError for anything else."""
    several: Any = [given] if _is_one(given) else given
    built = [_prompt(one, number) for number, one in enumerate(several, start=1)]
    if not built:
        raise ValueError("no interpretation prompt")
    return ask(built, [question] if isinstance(question, str) else list(question or ()))


def _prompt(given: Any, number: int) -> InterpretationPrompt | InterpretationPromptSpec:
    if isinstance(given, str):
        return find_spec(given)
    if isinstance(given, SelfiePrompt):
        return given.located()
    if _has_placeholders(given):
        return InterpretationPromptSpec("custom" if number == 1 else f"custom_{number}", sequence=tuple(given))
    if not isinstance(given, (InterpretationPrompt, InterpretationPromptSpec)):
        raise ValueError(
            "an interpretation prompt is a name, a path, an InterpretationPrompt, its spec, or a sequence of text and "
            f'ints such as ("It is", 0), not {given!r}; for text with placeholders use InterpretationPrompt.from_text'
        )
    return given


def _is_one(given: Any) -> bool:
    return (
        isinstance(given, (str, InterpretationPrompt, InterpretationPromptSpec, SelfiePrompt))
        or _has_placeholders(given)
        or not isinstance(given, Sequence)
    )


def _has_placeholders(given: Any) -> bool:
    """Whether it is one prompt, text and ints, and not several prompts."""
    return isinstance(given, (list, tuple)) and any(isinstance(piece, int) for piece in given)
