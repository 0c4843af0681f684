"""How what goes wrong is told to clients: a status, and one sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from .scheduler import BusyError
from .streams import FailedError
from .tickets import StoppedError, in_short

SECONDS_TO_RETRY = 2
_SHOWN = 3
"""Wrong fields that are named."""


class AsciiResponse(JSONResponse):
    """JSON without characters beyond ASCII: half of a surrogate pair, which a client can send, has no other form."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def add_error_handlers(app: FastAPI) -> None:
    """For everything that a request can end with, so that none ends with a page of the library's."""

    def answer(status: int, say: Callable[[Any], str], headers: dict[str, str] | None = None) -> Any:
        return lambda _, error: AsciiResponse({"detail": say(error)}, status, headers)

    retry = {"Retry-After": str(SECONDS_TO_RETRY)}
    app.add_exception_handler(RequestValidationError, answer(422, _wrong_fields))
    app.add_exception_handler(ValueError, answer(422, in_short))
    app.add_exception_handler(BusyError, answer(503, str, retry))
    app.add_exception_handler(StoppedError, answer(503, str))
    app.add_exception_handler(FailedError, answer(500, str))
    app.add_exception_handler(Exception, answer(500, in_short))


def _wrong_fields(error: RequestValidationError) -> str:
    """A field that may have several forms has a complaint for each of them."""
    found: dict[str, list[str]] = {}
    for one in error.errors():
        place = [part for part in one["loc"] if part != "body"]
        found.setdefault(str(place[0])[:40] if place else "the request", []).append(one["msg"])
    told = [f"{name}: {', or '.join(dict.fromkeys(messages))}" for name, messages in list(found.items())[:_SHOWN]]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return in_short(ValueError("; ".join(told) + more))
