"""Interpretation prompts: text with placeholders → token ids and the positions where an embedding goes in.

    sequence = ("[INST]", 0, 0, 0, "[/INST] Sure, I will summarize the message:")
    prompt = InterpretationPrompt.from_sequence(tokenizer, sequence)
    prompt.input_ids[prompt.insert_locations[0]]  # the token of the first placeholder

Without a tokenizer at hand, the same is written as an InterpretationPromptSpec: in BUILT_IN, or in a JSON file with the
spec's fields as keys.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..models.chat_template import (
    ChatTemplateError,
    encode_prompt,
    has_chat_template,
    user_turn,
    wants_special_tokens,
)
from ..models.tokenizer import Tokenizer
from .placeholders import MARKS, locate
from .stop import Stop

__all__ = ["BUILT_IN", "InterpretationPrompt", "InterpretationPromptSpec", "encode_prompt", "user_turn"]

QUESTION_FIELD = "{question}"
"""In a prompt, where a question goes in."""
_STAND_IN = "\uffff"
"""Holds a placeholder's place while the chat template is applied. It is no character, so no text has it."""


@dataclass(frozen=True)
class InterpretationPrompt:
    """A tokenized interpretation prompt."""

    name: str
    input_ids: tuple[int, ...]
    """The whole prompt, special tokens included."""
    insert_locations: tuple[int, ...]
    """Ascending positions in `input_ids` whose hidden states are overwritten."""
    text: str
    """What was tokenized, with a mark at each placeholder."""
    stop: Stop | None = None
    """Where interpretations end; None: at an end-of-sequence token alone."""
    question: str | None = None
    """What was asked about the embedding, where the prompt has a field for it."""

    def __post_init__(self) -> None:
        locations = self.insert_locations
        if not locations:
            raise ValueError(f"interpretation prompt {self.name!r} has no placeholder")
        if list(locations) != sorted(set(locations)) or locations[0] < 0 or locations[-1] >= len(self.input_ids):
            raise ValueError(
                f"interpretation prompt {self.name!r}: insert_locations {list(locations)} must ascend "
                f"within its {len(self.input_ids)} tokens"
            )

    @classmethod
    def from_sequence(
        cls, tokenizer: Tokenizer, sequence: Sequence[str | int], *, name: str = "custom"
    ) -> InterpretationPrompt:
        """From pieces of text and placeholders: an int is one placeholder, whatever its value.

        Placeholders are set off from text and from each other by a space where there is no white space yet.

        Raises:
            ValueError: no placeholder, or none that can be told apart from its neighbours in the tokens.
        """
        return InterpretationPromptSpec(name, sequence=tuple(sequence)).build(tokenizer)

    @classmethod
    def from_text(
        cls, tokenizer: Tokenizer, text: str, *, placeholder: str = "_", name: str = "custom"
    ) -> InterpretationPrompt:
        """From text in which every occurrence of `placeholder` is one placeholder.

        Adjacent placeholders are set off by a space; otherwise the text stays as it is. Where the mark is not one token
        of its own, another mark takes its place in the tokens.

        Raises:
            ValueError: no placeholder, or none that can be told apart from its neighbours in the tokens.
        """
        return InterpretationPromptSpec(name, text=text, placeholder=placeholder).build(tokenizer)


@dataclass(frozen=True)
class InterpretationPromptSpec:
    """An interpretation prompt before it meets a tokenizer: either `sequence`, or `text` with `placeholder`."""

    name: str
    sequence: tuple[str | int, ...] = ()
    """Pieces of text and ints; each int is one placeholder."""
    text: str = ""
    placeholder: str = "_"
    """The mark in `text`."""
    chat: bool = False
    """Whether the prompt is a user's turn, to be wrapped by the tokenizer's chat template."""
    reply: str = ""
    """With `chat`: the beginning of the assistant's reply, which the interpretation continues."""
    stop: str = ""
    """The interpretation ends when its text, after leading white space, has this text in it, or when it says the same
    thing for the third time running; see `prompts.stop`. Empty: it ends at neither."""
    repeated: bool = False
    """Whether its one placeholder is written once for each vector of a segment; see `vectors`."""
    vectors: int = 1
    """How often a repeated placeholder is written, with spaces between."""
    question: str | None = None
    """What takes the place of {question} in the text, the sequence and the reply; not searched for placeholders. None:
    not asked yet, so that a prompt with this field cannot be built."""
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.sequence) == bool(self.text):
            raise self._error("give either a sequence or a text, and not an empty one")
        if self.text and not self.placeholder:
            raise self._error("the placeholder is empty")
        if self.reply and not self.chat:
            raise self._error("a reply belongs to a chat prompt; set chat, or write it at the end of the text")
        object.__setattr__(self, "_pieces", self._split_text() if self.text else self._split_sequence())
        if self.question is not None:
            self._fill_in(self.question)
        if self.repeated:
            self._repeat()
        if len(self._pieces) < 2:
            remedy = f"write {self.placeholder!r} where the embedding goes in" if self.text else "an int stands for one"
            raise self._error(f"there is no placeholder; {remedy}")
        for piece in (*self._pieces, self.reply, self.stop):
            if _STAND_IN in piece or any("\ud800" <= letter <= "\udfff" for letter in piece):
                raise self._error(f"{shortened(piece)} contains U+FFFF or half of a surrogate pair: no characters")

    @property
    def has_field(self) -> bool:
        """Whether it has a {question} that nothing has been put into."""
        return any(QUESTION_FIELD in piece for piece in (*self._pieces, self.reply))

    def asking(self, question: str) -> InterpretationPromptSpec:
        """The same prompt with a question in its field. Raises ValueError where there is no field, or no question."""
        return replace(self, question=question)

    def holding(self, vectors: int) -> InterpretationPromptSpec:
        """The same prompt with a placeholder for each of so many vectors, if its placeholder may be repeated."""
        return replace(self, vectors=vectors) if self.repeated else self

    def build(self, tokenizer: Tokenizer, *, now: datetime | None = None) -> InterpretationPrompt:
        """Tokenize the prompt and find its placeholders.

        now: see `user_turn`.

        Raises:
            ValueError: the placeholders cannot be told apart from their neighbours, or the chat template fails or
                changes the text, or there is a {question} that nothing was put into.
        """
        if self.question is None and self.has_field:
            raise self._error(f"it has the field {QUESTION_FIELD}; give a question")
        pieces = self._in_chat(tokenizer, now) if self.chat else self._pieces
        special = wants_special_tokens(tokenizer, pieces[0], templated=self.chat and has_chat_template(tokenizer))
        marks = (self.placeholder, *MARKS) if self.text else MARKS
        located = locate(tokenizer, pieces, marks, add_special_tokens=special)
        if located is None:
            raise self._error(
                f"no placeholder mark is a token of its own in {shortened(marks[0].join(pieces))} "
                f"(tried {', '.join(map(repr, dict.fromkeys(marks)))}); put spaces around the placeholders"
            )
        ids, locations, mark = located
        stop = Stop(self.stop, tokenizer) if self.stop else None
        return InterpretationPrompt(self.name, tuple(ids), tuple(locations), mark.join(pieces), stop, self.question)

    def _in_chat(self, tokenizer: Tokenizer, now: datetime | None) -> list[str]:
        """The pieces as a user's turn, followed by the beginning of the reply."""
        try:
            turn = user_turn(tokenizer, _STAND_IN.join(self._pieces), now=now)
        except ChatTemplateError as error:
            told = str(error).replace(repr(_STAND_IN)[1:-1], MARKS[0])
            raise self._error(f"{told}; write the prompt without chat") from None
        reply = self.reply if self.question is None else self.reply.replace(QUESTION_FIELD, self.question)
        gap = " " if reply and not turn[-1:].isspace() else ""
        pieces = (turn + gap + reply).split(_STAND_IN)
        if len(pieces) != len(self._pieces):
            kept, given = len(pieces) - 1, len(self._pieces) - 1
            raise self._error(f"the chat template makes {kept} of {given} placeholders; write the prompt without chat")
        return pieces

    def _fill_in(self, question: str) -> None:
        if not question.strip():
            raise self._error("the question is empty")
        if not self.has_field:
            raise self._error(f"it has no field {QUESTION_FIELD} for the question {shortened(question)}")
        object.__setattr__(self, "_pieces", tuple(piece.replace(QUESTION_FIELD, question) for piece in self._pieces))

    def _repeat(self) -> None:
        if len(self._pieces) > 2:
            raise self._error(f"it has {len(self._pieces) - 1} placeholders; only a single one can be repeated")
        first, *last = self._pieces
        object.__setattr__(self, "_pieces", (first, *[" "] * (self.vectors - 1), *last))

    def _split_text(self) -> tuple[str, ...]:
        if found := _within_a_word(self.placeholder, self.text):
            warnings.warn(
                f"interpretation prompt {shortened(self.name)}: the placeholder {self.placeholder!r} stands within "
                f"{found!r} and is taken for one there, too; choose a mark that the text does not have",
                stacklevel=5,
            )
        first, *rest = self.text.split(self.placeholder)
        return (first, *(piece or " " for piece in rest[:-1]), *rest[-1:])

    def _split_sequence(self) -> tuple[str, ...]:
        pieces = [""]
        for index, part in enumerate(self.sequence):
            after_placeholder = len(pieces) > 1 and not pieces[-1]
            if isinstance(part, str):
                pieces[-1] += f" {part}" if after_placeholder and part and not part[0].isspace() else part
            elif isinstance(part, bool) or not hasattr(part, "__index__"):
                raise self._error(f"sequence[{index}] is {shortened(part)}; only text and ints can stand there")
            else:
                if after_placeholder or (pieces[-1] and not pieces[-1][-1].isspace()):
                    pieces[-1] += " "
                pieces.append("")
        return tuple(pieces)

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"interpretation prompt {shortened(self.name)}: {problem}")


def _within_a_word(mark: str, text: str) -> str | None:
    """The first word with the mark in it that has letters or digits right beside it."""
    single = re.escape(mark)
    match = re.search(rf"[^\W_]+(?:{single})+\w*|(?:{single})+[^\W_]\w*", text)
    if match is None or not match[0].replace(mark, ""):
        return None
    begin = re.search(r"\w*$", text[: match.start()])
    return (begin[0] if begin else "") + match[0]


def _five_placeholders(name: str, request: str, reply: str) -> InterpretationPromptSpec:
    """A user who sends the embedding as a message, after SelfIE (Chen, Vondrick and Mao 2024)."""
    return InterpretationPromptSpec(name, sequence=(request, 0, 0, 0, 0, 0), chat=True, reply=reply)


_DESCRIPTIONS = (
    "Peru: a country in South America\n"
    "harp: a musical instrument with many strings\n"
    "Marie Curie: a Polish scientist\n"
    "butter: a food made from milk\n"
    "Lisbon: a city on the coast of Portugal\n"
    "tennis: a sport played with rackets\n"
    "Nokia: a Finnish phone company\n"
    "otter: an animal that lives in rivers\n "
)
"""Things of many kinds, so that no kind is what the prompt says by itself; chosen with the default settings."""

_THREE_DESCRIPTIONS = (
    "Syria: a country in the Middle East\n"
    "Leonardo DiCaprio: an American actor\n"
    "Samsung: a South Korean electronics company\n "
)
"""After Patchscopes (Ghandeharioun and others 2024)."""

_QUESTIONS = (
    "Peru\nQuestion: Which continent is it on?\nAnswer: South America\n\n"
    "harp\nQuestion: What is it?\nAnswer: a musical instrument\n\n"
    "Marie Curie\nQuestion: What is her profession?\nAnswer: scientist\n\n "
)

BUILT_IN: dict[str, InterpretationPromptSpec] = {
    spec.name: spec
    for spec in (
        _five_placeholders("summarize", "", "Sure, I will summarize your message:"),
        _five_placeholders("repeat", "", "Sure, I will repeat your message:"),
        _five_placeholders("object", "", "Sure, I will name the object:"),
        _five_placeholders("object_in_message", "", "Sure, the object in your message is"),
        InterpretationPromptSpec("describe", sequence=(_DESCRIPTIONS, 0, 0), stop="\n"),
        InterpretationPromptSpec("describe_once", sequence=(_THREE_DESCRIPTIONS, 0), stop="\n"),
        InterpretationPromptSpec(
            "ask", sequence=(_QUESTIONS, 0, 0, f"\nQuestion: {QUESTION_FIELD}\nAnswer:"), stop="\n"
        ),
    )
}
"""The interpretation prompts that are known by name."""


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:160]}… ({len(shown)} characters)"
