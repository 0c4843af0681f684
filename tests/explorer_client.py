"""A client of the explorer that uses the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit


class Client:
    """Talks to one server, as a program would."""

    def __init__(self, url: str, **headers: str) -> None:
        self.address = urlsplit(url)
        self.headers = headers

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status, and the answer's JSON or text."""
        with self._answer("GET", path, None, headers) as answer:
            return answer.status, _content(answer)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status, and the answer's JSON or bytes."""
        with self._answer("POST", path, body, headers) as answer:
            return answer.status, _content(answer)

    @contextmanager
    def stream(self, path: str, body: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events, each with its data; leaving the context closes the connection."""
        with self._answer("POST", path, body, {}) as answer:
            assert answer.status == 200, answer.read()
            yield _events(answer)

    def cells(self, body: Any, path: str = "interpret") -> list[Any]:
        """All cells of a stream that ends well."""
        with self.stream(path, body) as events:
            found = list(events)
        assert found[0][0] == "begun" and found[-1][0] == "done", found[-1]
        cells = [cell for name, data in found if name == "cells" for cell in data["cells"]]
        assert len(cells) == found[0][1]["n_cells"]
        return cells

    @contextmanager
    def _answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        connection = HTTPConnection(self.address.hostname, self.address.port, timeout=120)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, "/" + path.lstrip("/"), content, {**kind, **self.headers, **headers})
            yield connection.getresponse()
        finally:
            connection.close()


def _content(answer: HTTPResponse) -> Any:
    content = answer.read()
    return json.loads(content) if answer.headers.get_content_type() == "application/json" else content


def _events(answer: HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
