"""Who may talk to the server: nobody but the page that it serves, and programs that have its token.

A page of another site could send requests to a server on this machine, or let its own name point here (DNS rebinding).
So the Host must be one that the server goes by and an Origin must be the server's own. Where others on the network can
reach it, a token is needed besides, as with notebooks.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "llm-interpret-token"
MOST_BYTES = 4 * 2**20
"""Of a request's body: 256 vectors of 2,048 numbers as text."""


class Guard:
    """Wraps the application; what is refused never reaches it."""

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str] = LOOPBACK, token: str | None = None, most_bytes: int = MOST_BYTES
    ) -> None:
        """hosts: names without a port that the server goes by; none: any. token: None: none is needed."""
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        response = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if response is None else response)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self._hosts and _name_of(host) not in self._hosts:
            return _refuse(403, f"this server does not go by the name {host!r}; use {', '.join(sorted(self._hosts))}")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}":
            return _refuse(403, f"pages of {origin!r} may not use this server")
        if scope["method"] in ("POST", "PUT", "PATCH"):
            length = headers.get("content-length", "")
            if not length.isascii() or not length.isdigit():
                return _refuse(411, "say how long the request is: Content-Length is missing")
            if int(length) > self._most_bytes:
                return _refuse(413, f"the request has {int(length):,} bytes; {self._most_bytes:,} are taken at most")
        return None if self._token is None else self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        in_url = query.get("token", [""])[-1]
        if scope["path"] == "/" and _is(in_url, self._token):
            response = RedirectResponse(scope.get("root_path", "") + "/", 303)  # out of the address bar and the history
            response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if any(_is(given, self._token) for given in (in_url, bearer, cookie)):
            return None
        return _refuse(401, "the token is missing or wrong; open the address that the server printed when it began")


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


def _is(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _name_of(host: str) -> str:
    """Without the port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, status)
