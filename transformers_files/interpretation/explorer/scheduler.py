"""One thread owns the model, and the cells of several clients share its engine calls.

    scheduler = Scheduler(model)
    ticket = Ticket(work, send)
    scheduler.submit(ticket)                # send(message) is called from the model's thread
    scheduler.release(ticket)               # whether it is finished or not: nothing more is computed for it
    scheduler.call(function).result()       # anything else that needs the model

Each engine call takes cells of all tickets that are interpreted with the same settings and prompt, the same number of
each, so that nobody waits for a neighbour's whole grid. It is about a second's work: then those who have gone away have
stopped costing, and those who have come get their first cells.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from torch import nn

from ..engine.decode import interpret_chunk, resolve_batch_size
from ..results.record import Record
from .dealing import Pace, shares
from .memory import Memory
from .messages import Computed, Finished
from .tickets import ReadyCell, StoppedError, Ticket, Work

MOST_CELLS = 50_000
"""Of all tickets together until they are released: what waits, and what has been computed and not been fetched."""
MOST_CALLS = 256
"""Other requests for the model in the queue."""
_FITTING = 1000
"""Lengths of prompts whose batch size is kept."""


class BusyError(RuntimeError):
    """The queue is full; the message says what to do."""


class Scheduler:
    """The model's thread, from construction to `close`."""

    def __init__(self, model: nn.Module, *, most_cells: int = MOST_CELLS) -> None:
        self._model = model
        self._most_cells = most_cells
        self._changed = threading.Condition()
        self._held: dict[Ticket, int] = {}
        """Tickets that are not released, and how many cells they have."""
        self._turns: deque[Ticket] = deque()
        """Those of which cells wait; the first is served next."""
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._pace = Pace()
        self._memory = Memory()
        self._fitting: dict[tuple[int, int], int] = {}
        self._is_closed = False
        self.engine_calls = 0
        """How many there have been."""
        self._thread = threading.Thread(target=self._run, name="interpretation", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Cells in the queue."""
        with self._changed:
            return sum(len(ticket.waiting) for ticket in self._turns if not ticket.is_released)

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._is_closed

    def check_size(self, cells: int) -> None:
        """Raise ValueError for more cells than one request may have."""
        if cells > self._most_cells:
            raise ValueError(
                f"{cells:,} cells are asked for, and at most {self._most_cells:,} can be; choose fewer layers or tokens"
            )

    def submit(self, ticket: Ticket) -> None:
        """Raises BusyError where there is no room for so many cells, StoppedError when closed."""
        cells = len(ticket.waiting)
        self.check_size(cells)
        with self._changed:
            self._refuse_if_closed()
            held = sum(self._held.values())
            if held + cells > self._most_cells:
                raise BusyError(
                    f"{held:,} cells are being computed for others and {cells:,} more are too many; try again soon, or "
                    "choose fewer layers or tokens"
                )
            self._held[ticket] = cells
            self._turns.append(ticket)
            self._changed.notify()

    def release(self, ticket: Ticket) -> None:
        """Nothing more is computed for the ticket from the next engine call on."""
        with self._changed:
            ticket.is_released = True
            self._held.pop(ticket, None)

    def call(self, function: Callable[[], Any]) -> Future:
        """Run a function in the model's thread, between engine calls. Raises BusyError, StoppedError."""
        future: Future = Future()
        with self._changed:
            self._refuse_if_closed()
            if len(self._calls) >= MOST_CALLS:
                raise BusyError(f"{len(self._calls)} requests are waiting for the model; try again soon")
            self._calls.append((future, function))
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread after its present engine call; what still waits is told so."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        stopped = StoppedError("the server is being stopped")
        while self._turns:
            self._turns.popleft().give_up(stopped)
        while self._calls:
            future, _ = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(stopped)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise StoppedError("the server is being stopped")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._turns or self._calls)
                if self._is_closed:
                    return
                call = self._calls.popleft() if self._calls else None
            if call is not None:
                _answer(*call)
            self._serve()

    def _serve(self) -> None:
        """One engine call."""
        with self._changed:
            self._turns = deque(ticket for ticket in self._turns if not ticket.is_released)
            first = self._turns[0] if self._turns else None
        if first is None:
            return
        try:
            room = min(self._pace.cells(first.work.settings.max_new_tokens), self._rows_that_fit(first.work))
        except Exception as error:
            first.give_up(error)
            return
        with self._changed:
            served = self._dealt(first, room)
        self._compute(served)
        with self._changed:
            for ticket, _ in served:
                self._turns.remove(ticket)
                if ticket.waiting and not ticket.is_released:
                    self._turns.append(ticket)  # behind the others

    def _dealt(self, first: Ticket, room: int) -> list[tuple[Ticket, list[Any]]]:
        """Whose turn it is, and with which cells."""
        company = [ticket for ticket in self._turns if ticket.shares_calls_with(first)]
        portions = zip(company, shares([len(ticket.waiting) for ticket in company], room))
        return [(ticket, [ticket.waiting.popleft() for _ in range(cells)]) for ticket, cells in portions if cells]

    def _compute(self, served: Sequence[tuple[Ticket, list[Any]]]) -> None:
        new: list[tuple[Ticket, ReadyCell]] = []
        for ticket, addresses in served:
            try:
                new += [(ticket, ready) for ready in self._prepared(ticket, addresses)]
            except Exception as error:  # one client's request must not stop the others'
                ticket.give_up(error)
        if new:
            self._interpret(new)
        for ticket, _ in served:
            if not ticket.waiting and not ticket.is_released:
                ticket.tell(Finished())

    def _prepared(self, ticket: Ticket, addresses: Sequence[Any]) -> list[ReadyCell]:
        """Those that have to be computed; what is known is sent at once."""
        work = ticket.work
        if not ticket.has_begun:
            ticket.has_begun = True
            ticket.tell(work.begin())
        ready = work.ready(addresses)
        known = [self._memory.get(work, one.cell) for one in ready]
        if records := tuple(work.record(one, found) for one, found in zip(ready, known) if found is not None):
            ticket.tell(Computed(records))
        return [one for one, found in zip(ready, known) if found is None]

    def _interpret(self, new: Sequence[tuple[Ticket, ReadyCell]]) -> None:
        owners = list(dict.fromkeys(ticket for ticket, _ in new))
        try:
            records = self._engine_call(new)
        except Exception as error:
            if len(owners) == 1:
                logging.getLogger(__name__).warning("cells could not be interpreted", exc_info=error)
                owners[0].give_up(error)
                return
            for owner in owners:  # each alone: whose fault was it?
                self._interpret([(ticket, ready) for ticket, ready in new if ticket is owner])
            return
        for owner in owners:
            owner.tell(Computed(tuple(record for (ticket, _), record in zip(new, records) if ticket is owner)))

    def _engine_call(self, new: Sequence[tuple[Ticket, ReadyCell]]) -> list[Record]:
        settings, cells = new[0][0].work.settings, [ready.cell for _, ready in new]
        self.engine_calls += 1
        began = time.perf_counter()
        found = interpret_chunk(self._model, cells, settings, batch_size=len(cells))
        self._pace.note(len(cells), settings.max_new_tokens, time.perf_counter() - began)
        for (ticket, ready), interpretation in zip(new, found):
            self._memory.put(ticket.work, ready.cell, interpretation)
        return [ticket.work.record(ready, interpretation) for (ticket, ready), interpretation in zip(new, found)]

    def _rows_that_fit(self, work: Work) -> int:
        """Cells that memory suggests for prompts of such a length."""
        key = max(len(prompt.input_ids) for prompt in work.prompts), work.settings.max_new_tokens
        if key not in self._fitting:
            if len(self._fitting) >= _FITTING:
                self._fitting.clear()
            self._fitting[key] = resolve_batch_size(self._model, work.prompts, work.settings)
        return self._fitting[key]


def _answer(future: Future, function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
