"""The explorer in a thread of this process: for notebooks, for tests, and for the program."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from torch import nn

from ..models.tokenizer import Tokenizer

if TYPE_CHECKING:
    import uvicorn

LOOPBACK = "127.0.0.1"
BATCH_SIZE = 64
"""Cells of an engine call: a second or two on two cores, and so long may a cancelled one go on."""


class MissingPackageError(ImportError):
    """A package that the explorer needs is not there; the message says how to get it."""


class Explorer:
    """A server of one model, from construction to `close`."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str | None = None,
        host: str = LOOPBACK,
        port: int = 0,
        token: str | None = None,
        opening: Mapping[str, str] | None = None,
    ) -> None:
        """Start serving.

        Args:
            model, tokenizer: as for `interpret`.
            name: what the model is called; None: as its configuration says.
            host: the address to listen at. Any other than a loopback one needs a token, and gets one.
            port: 0: a free one.
            token: what clients must show. None: none on loopback, elsewhere a new one.
            opening: fields of the page's form that `url` fills in; see `opening.opening`.

        Raises:
            MissingPackageError: fastapi or uvicorn is not installed.
            OSError: the port is taken, or the address is not one of this machine.
        """
        try:
            import uvicorn

            from .application import Served, make_application
            from .guard import LOOPBACK as NAMES
            from .guard import Guard, new_token
            from .scheduler import Scheduler
        except ModuleNotFoundError as error:
            if error.name not in ("fastapi", "starlette", "uvicorn", "pydantic"):
                raise
            raise MissingPackageError(
                f"the explorer needs the package {error.name}; run: python -m pip install fastapi uvicorn"
            ) from error
        is_local = host in (LOOPBACK, "localhost", "::1")
        self.token = token or (None if is_local else new_token())
        self._opening = dict(opening or {})
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])
        name = name or str(getattr(model.config, "name_or_path", "") or type(model).__name__)
        served = Served(model, tokenizer, name, Scheduler(model, batch_size=BATCH_SIZE), BATCH_SIZE)
        self.scheduler = served.scheduler
        app = Guard(make_application(served), hosts=NAMES if is_local else (), token=self.token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._host = "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host
        self._thread = threading.Thread(target=_serve, args=(self._server, self._socket), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        token = f"?{urlencode({'token': self.token})}" if self.token else ""
        fragment = f"#{urlencode(self._opening)}" if self._opening else ""
        return f"http://{self._host}:{self.port}/{token}{fragment}"

    def wait(self) -> None:
        """Until the server ends."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # so that Ctrl-C is seen

    def close(self) -> None:
        """Stop serving; what is being computed is given up."""
        self._server.should_exit = True
        self._thread.join()
        self.scheduler.close()
        self._socket.close()

    def __enter__(self) -> Explorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Explorer at {self.url}; .close() ends it>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame."""
        from html import escape

        return (
            f'<iframe src="{escape(self.url)}" title="Explorer" width="100%" height="860" '
            'style="border:1px solid #8884;border-radius:6px"></iframe>'
            f'<p>In a window of its own: <a href="{escape(self.url)}" target="_blank">{escape(self.url)}</a></p>'
        )


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def _serve(server: uvicorn.Server, listener: socket.socket) -> Any:
    """Signals belong to the main thread, so the server must not ask for them."""
    server.run(sockets=[listener])
