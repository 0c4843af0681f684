"""One thread owns the model, and the cells of several clients share its engine calls.

    scheduler = Scheduler(model)
    scheduler.submit(Ticket(job, addresses, send))        # send(message) is called from the model's thread
    scheduler.call(function).result()                     # anything else that needs the model

Each engine call takes cells from all tickets that are interpreted with the same settings, the same number from each, so
that nobody waits for a neighbour's whole grid. The first call of a ticket is small: somebody is watching. A cancelled
ticket costs nothing from the next call on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..engine.decode import interpret_chunk
from ..report.grid import Column, columns_of
from ..results.record import Record
from ..runs.grid import Address
from ..runs.job import Job, Ready

MOST_WAITING = 100_000
"""Cells in the queue."""
MOST_CALLS = 256
"""Other requests for the model in the queue."""
FIRST_CELLS = 16
"""Of a ticket's first engine call."""
REMEMBERED = 20_000
"""Records that are kept for whoever asks again."""


class BusyError(RuntimeError):
    """The queue is full; the message says what to do."""


@dataclass(frozen=True)
class Begun:
    """The source has been read."""

    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Computed:
    """Some more cells."""

    records: tuple[Record, ...]


@dataclass(frozen=True)
class Failed:
    """There will be no more."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """All cells have been sent."""


Message = Begun | Computed | Failed | Finished


@dataclass(eq=False)
class Ticket:
    """Cells that one client waits for."""

    job: Job
    addresses: Sequence[Address]
    """In the order in which they are wanted."""
    send: Callable[[Message], Any]
    """Is called from the model's thread."""
    identity: str = ""
    """Equal for tickets whose cells at the same layer and token are equal; empty: nothing is remembered."""
    cancelled: bool = False
    waiting: deque[Address] = field(init=False)
    has_begun: bool = field(init=False, default=False)
    was_served: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.waiting = deque(self.addresses)

    def cancel(self) -> None:
        """Nothing more is computed or sent, from the next engine call on."""
        self.cancelled = True

    def tell(self, message: Message) -> None:
        """Send to a client that may have gone."""
        try:
            self.send(message)
        except RuntimeError:  # its event loop is closed
            self.cancel()


class Scheduler:
    """The model's thread, from construction to `close`."""

    def __init__(self, model: nn.Module, *, batch_size: int = 64, most_waiting: int = MOST_WAITING) -> None:
        """batch_size: cells of an engine call; a smaller one lets cancelled requests go sooner."""
        self._model = model
        self._batch_size = batch_size
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._tickets: deque[Ticket] = deque()
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._memory = _Memory(REMEMBERED)
        self._is_closed = False
        self.engine_calls = 0
        """How many there have been."""
        self._thread = threading.Thread(target=self._run, name="interpretation", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Cells in the queue."""
        with self._changed:
            return sum(len(ticket.waiting) for ticket in self._tickets if not ticket.cancelled)

    def submit(self, ticket: Ticket) -> None:
        """Raises BusyError where the queue has no room for so many cells."""
        with self._changed:
            waiting = sum(len(other.waiting) for other in self._tickets if not other.cancelled)
            if waiting + len(ticket.waiting) > self._most_waiting:
                raise BusyError(
                    f"{waiting:,} cells are waiting and {len(ticket.waiting):,} more are too many; try again soon, or "
                    "choose fewer layers or tokens"
                )
            self._tickets.append(ticket)
            self._changed.notify()

    def call(self, function: Callable[[], Any]) -> Future:
        """Run a function in the model's thread, between engine calls. Raises BusyError."""
        future: Future = Future()
        with self._changed:
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
        for ticket in self._tickets:
            ticket.tell(Failed("the server is being stopped"))
        for future, _ in self._calls:
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._tickets or self._calls)
                if self._is_closed:
                    return
                call = self._calls.popleft() if self._calls else None
            if call is not None:
                _answer(*call)
            self._serve()

    def _serve(self) -> None:
        """One engine call."""
        with self._changed:
            self._tickets = deque(ticket for ticket in self._tickets if not ticket.cancelled)
            served = self._dealt()
        self._compute(served)
        with self._changed:
            for ticket, _ in served:
                self._tickets.remove(ticket)
                if ticket.waiting and not ticket.cancelled:
                    self._tickets.append(ticket)  # behind the others

    def _dealt(self) -> list[tuple[Ticket, list[Address]]]:
        """Whose turn it is, and with which cells."""
        if not self._tickets:
            return []
        first = self._tickets[0]
        alike = [ticket for ticket in self._tickets if ticket.job.settings == first.job.settings]
        alike = alike[: self._batch_size]
        share = max(1, self._batch_size // len(alike))
        if any(not ticket.was_served for ticket in alike):
            share = min(share, FIRST_CELLS)
        return [
            (ticket, [ticket.waiting.popleft() for _ in range(min(share, len(ticket.waiting)))]) for ticket in alike
        ]

    def _compute(self, served: Sequence[tuple[Ticket, list[Address]]]) -> None:
        ready: list[tuple[Ticket, Ready]] = []
        for ticket, addresses in served:
            ticket.was_served = True
            try:
                ready += [(ticket, one) for one in self._prepared(ticket, addresses)]
            except Exception as error:  # one client's request must not stop the others'
                _give_up(ticket, error)
        try:
            self._interpret(ready)
        except Exception as error:
            owners = dict.fromkeys(ticket for ticket, _ in ready)
            if len(owners) == 1:
                _give_up(ready[0][0], error)
            for ticket in owners if len(owners) > 1 else ():  # each alone: whose fault was it?
                self._compute([(ticket, [one.address for owner, one in ready if owner is ticket])])
            served = [(ticket, addresses) for ticket, addresses in served if ticket not in owners]
        for ticket, _ in served:
            if not ticket.waiting and not ticket.cancelled:
                ticket.tell(Finished())

    def _prepared(self, ticket: Ticket, addresses: Sequence[Address]) -> list[Ready]:
        """Those that have to be computed; what is known is sent at once."""
        known = [self._memory.get(ticket.identity, address) for address in addresses]
        new = [address for address, record in zip(addresses, known) if record is None]
        if not ticket.has_begun:
            ticket.has_begun = True
            ticket.tell(Begun(_columns(ticket.job)))
        if records := tuple(record for record in known if record is not None):
            ticket.tell(Computed(records))
        return ticket.job.ready(new)

    def _interpret(self, ready: Sequence[tuple[Ticket, Ready]]) -> None:
        if not ready:
            return
        cells = [one.cell for _, one in ready]
        self.engine_calls += 1
        settings = ready[0][0].job.settings
        interpretations = interpret_chunk(self._model, cells, settings, batch_size=self._batch_size)
        records: dict[Ticket, list[Record]] = {}
        for (ticket, one), interpretation in zip(ready, interpretations):
            record = ticket.job.record(one, interpretation)
            self._memory.put(ticket.identity, one.address, record)
            records.setdefault(ticket, []).append(record)
        for ticket, its in records.items():
            ticket.tell(Computed(tuple(its)))


class _Memory:
    """The records that were asked for last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: OrderedDict[Any, Record] = OrderedDict()

    def get(self, identity: str, address: Address) -> Record | None:
        key = (identity, address.layer, address.token)
        if key in self._records:
            self._records.move_to_end(key)
        return self._records.get(key)

    def put(self, identity: str, address: Address, record: Record) -> None:
        if identity:
            self._records[identity, address.layer, address.token] = record
            while len(self._records) > self._size:
                self._records.popitem(last=False)


def rough_first(addresses: Sequence[Address]) -> list[Address]:
    """Every fourth layer, then every second, then the others: a rough grid comes first."""
    layers = sorted({address.layer for address in addresses})
    turn = {layer: 0 if at % 4 == 0 else 1 if at % 2 == 0 else 2 for at, layer in enumerate(layers)}
    return sorted(addresses, key=lambda address: (turn[address.layer], address.layer))


def _columns(job: Job) -> tuple[Column, ...]:
    """The tokens of the job's one source that exist."""
    (source,) = job.plan.sources
    reading = job.reading(source)
    there = [token for token in source.tokens if reading.has(token)]
    tokens = [(reading.index(token), reading.name(token), reading.kind(token)) for token in there]
    return columns_of(tokens, reading.tokens)


def _give_up(ticket: Ticket, error: Exception) -> None:
    ticket.tell(Failed(f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)))
    ticket.waiting.clear()
    ticket.cancel()


def _answer(future: Future, function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
