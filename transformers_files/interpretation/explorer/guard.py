"""Who may talk to the server: nobody but the page that it serves, and programs that have its token.

A page of another site could send requests to a server on this machine, or let its own name point here (DNS rebinding).
So the Host must be one that the server goes by and an Origin must be the server's own. Where others on the network can
reach it, a token is needed besides, as with notebooks.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from hashlib import sha256
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "llm-interpret-token"
MOST_BYTES = 8 * 2**20
"""Of a request's body: a hundred vectors of 4,096 numbers as text."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise: nothing in it runs, and a text that clients sent is no page."""
_DIGITS = 15


class Guard:
    """Wraps the application; what is refused never reaches it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str] = LOOPBACK,
        takes_addresses: bool = False,
        token: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """hosts: names without a port that the server goes by. takes_addresses: whether any numeric address will do
        besides: no page of another site has one for its name. token: None: none is needed."""
        self._app = app
        self._takes_addresses = takes_addresses
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token
        # Cookies go to every port of a host, where another explorer may have its own.
        self._cookie = f"{COOKIE}-{sha256((token or '').encode()).hexdigest()[:8]}"
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        response = self._refusal(scope)
        await (self._app if response is None else response)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        name = _name_of(host)
        if name not in self._hosts and not (self._takes_addresses and _is_address(name)):
            names = ", ".join([*sorted(self._hosts), *["its numeric address"] * self._takes_addresses])
            return _refuse(
                403, f"this server does not go by the name {host!r}; use {names}, or start it with that name"
            )
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}":
            return _refuse(403, f"pages of {origin!r} may not use this server")
        if scope["method"] in ("POST", "PUT", "PATCH"):
            length = headers.get("content-length", "")
            if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
                return _refuse(411, "say how long the request is: it needs a Content-Length, and no Transfer-Encoding")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return _refuse(415, "the request must be JSON, with the Content-Type application/json")
            if len(length) > _DIGITS or int(length) > self._most_bytes:
                return _refuse(413, f"the request is too long; {self._most_bytes:,} bytes are taken at most")
        return None if self._token is None else self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        in_url = query.get("token", [""])[-1]
        if scope["path"] == "/" and _is(in_url, self._token):
            rest = urlencode([(name, value) for name, values in query.items() if name != "token" for value in values])
            # Out of the address bar and the history; what follows a # the browser keeps.
            response = RedirectResponse(f"{scope.get('root_path', '')}/{rest and '?'}{rest}", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if any(_is(given, self._token) for given in (in_url, bearer, cookie)):
            return None
        return _refuse(401, "the token is missing or wrong; open the address that the server printed when it began")


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


def _is(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """Without the port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, status)
