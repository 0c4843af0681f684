"""From the model's thread to clients: the messages of a ticket, also as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..report.page import cell_data
from ..results.calibration import BUILT_IN_CALIBRATION
from ..results.record import Record
from .messages import Begun, Computed, Failed, Finished, Message
from .scheduler import Scheduler
from .tickets import Ticket, Work


class FailedError(RuntimeError):
    """Cells that were asked for will not come; the message says why."""


class Listener:
    """The messages of one ticket, from the model's thread to this event loop."""

    def __init__(self, scheduler: Scheduler, work: Work) -> None:
        """Raises BusyError, StoppedError, ValueError."""
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._scheduler = scheduler
        self._ticket = Ticket(work, lambda message: loop.call_soon_threadsafe(self._queue.put_nowait, message))
        scheduler.submit(self._ticket)

    def leave(self) -> None:
        """What has not come yet is no longer wanted."""
        self._scheduler.release(self._ticket)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Up to the last."""
        message: Message | None = None
        while not isinstance(message, Finished | Failed):
            message = await self._queue.get()
            yield message

    async def records(self) -> list[Record]:
        """All of them, in the order of `interpret`. Raises FailedError."""
        found: list[Record] = []
        async for message in self:
            if isinstance(message, Failed):
                raise FailedError(message.reason)
            if isinstance(message, Computed):
                found += message.records
        return sorted(found, key=lambda one: (one.layer_idx or 0, one.token_idx, one.sample or 0))


class EventStream(StreamingResponse):
    """A listener's messages as server-sent events. When the client has gone, however it went, so does its ticket."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(_events(listener), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listener.leave()


async def _events(listener: Listener) -> AsyncIterator[str]:
    began = time.perf_counter()
    async for message in listener:
        match message:
            case Begun():
                columns = [[column.token_idx, column.text, column.source] for column in message.columns]
                yield _event("begun", layers=message.layers, columns=columns, n_cells=message.n_cells)
            case Computed():
                yield _event("cells", **cells_of(message.records))
            case Failed():
                yield _event("failed", detail=message.reason)
            case Finished():
                yield _event("done", seconds=round(time.perf_counter() - began, 3))


def cells_of(records: Sequence[Record]) -> dict[str, Any]:
    """As the report page has them; of samples also their numbers."""
    cells = [cell_data(record, BUILT_IN_CALIBRATION) for record in records]
    samples = [record.sample for record in records]
    return {"cells": cells} if None in samples else {"cells": cells, "samples": samples}


def _event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
