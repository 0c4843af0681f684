"""Questions about an embedding, put into the {question} field of interpretation prompts."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors.problems import ProblemsError
from .interpretation_prompt import QUESTION_FIELD, InterpretationPrompt, InterpretationPromptSpec

Prompt = InterpretationPrompt | InterpretationPromptSpec


def ask(prompts: Sequence[Prompt], questions: Sequence[str]) -> list[Prompt]:
    """Every prompt with every question, in this order; without questions the prompts as they are.

    Raises ProblemsError: a prompt without the field is asked something, or one with the field nothing.
    """
    problems: list[str] = []
    asked: list[Prompt] = []
    for prompt in prompts:
        try:
            asked += _asked(prompt, questions)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ProblemsError(problems)
    return asked


def _asked(prompt: Prompt, questions: Sequence[str]) -> list[Prompt]:
    if isinstance(prompt, InterpretationPrompt):
        if questions:
            raise ValueError(f"interpretation prompt {prompt.name!r} has its tokens already: give its spec to ask it")
        return [prompt]
    if questions:
        return [prompt.asking(question) for question in questions]
    if prompt.question is None and prompt.has_field:
        raise ValueError(f"interpretation prompt {prompt.name!r}: it has the field {QUESTION_FIELD}; give a question")
    return [prompt]
