"""What the scheduler is asked for: work with cells, and a ticket for each client that waits for some."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..engine.cell import Cell, Interpretation
from ..engine.settings import InterpretationSettings
from ..errors.problems import problems_of
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.record import Record
from .messages import Begun, Failed, Message

_SHOWN = 300
"""Characters of an error that are told to clients."""


class StoppedError(RuntimeError):
    """What was asked for will not come."""


class ReadyCell(Protocol):
    """What the engine takes, and whatever its work needs beside it."""

    @property
    def cell(self) -> Cell:
        """For the engine."""


class Work(Protocol):
    """Cells that are interpreted with the same settings and prompts. Its methods run in the model's thread."""

    settings: InterpretationSettings
    prompts: tuple[InterpretationPrompt, ...]
    """Of a grid one, and those for segments."""

    @property
    def addresses(self) -> Sequence[Any]:
        """Of its cells, in the order in which they are wanted."""

    def begin(self) -> Begun:
        """Read the source, or whatever comes first."""

    def ready(self, addresses: Sequence[Any]) -> Sequence[ReadyCell]:
        """What the engine needs of some cells; of those that do not exist, nothing."""

    def record(self, ready: Any, interpretation: Interpretation) -> Record:
        """A cell with its interpretation."""


@dataclass(eq=False)
class Ticket:
    """Work that one client waits for."""

    work: Work
    send: Callable[[Message], Any]
    """Is called from the model's thread."""
    is_released: bool = field(init=False, default=False)
    has_begun: bool = field(init=False, default=False)
    waiting: deque[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = deque(self.work.addresses)

    def shares_calls_with(self, other: Ticket) -> bool:
        """Whether the cells of both can be interpreted in one engine call without costing each other time."""
        ours, its = self.work, other.work
        return ours.settings == its.settings and ours.prompts == its.prompts

    def tell(self, message: Message) -> None:
        """Send to a client that may have gone."""
        try:
            self.send(message)
        except RuntimeError:  # its event loop is closed
            self.is_released = True

    def give_up(self, error: Exception) -> None:
        """Tell the client why, for good."""
        self.waiting.clear()
        self.tell(Failed(in_short(error)))
        self.is_released = True


def in_short(error: Exception) -> str:
    """For clients: what was wrong with their request, or in short what happened to the model."""
    text = "; ".join(problems_of(error)) or "no reason is known"
    text = text if isinstance(error, ValueError | StoppedError) else f"the model failed: {type(error).__name__}: {text}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
