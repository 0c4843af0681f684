"""The explorer in a thread of this process: for notebooks, for tests, and for the program."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlencode

from torch import nn

from ..mapping.checkpoint import MapsFile, check_spaces
from ..mapping.lenses import Lens
from ..models.adapters import Adapter
from ..models.layer_inputs import check_evaluation_mode
from ..models.tokenizer import Tokenizer
from ..prompts.index_selection import Selection
from ..readers.formats import find_reader
from ..runs.limits import Limits
from ..runs.source_model import SourceModel
from .defaults import Defaults

LOOPBACK = "127.0.0.1"
PACKAGES = ("fastapi", "uvicorn")
"""What the explorer needs beside the project's other packages."""


class MissingPackageError(ImportError):
    """A package that the explorer needs is not there; the message says how to get it."""


def check_packages() -> None:
    """Raise MissingPackageError, before a model is loaded."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(
                f"the explorer needs the package {name}; run: python -m pip install {' '.join(PACKAGES)}"
            )


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
        names: Sequence[str] = (),
        opening: Mapping[str, str] | None = None,
        lenses: Mapping[str, Lens] | None = None,
        reader: str | Path | None = None,
        reader_adapter: str | Path | None = None,
        mapping: str | Path | None = None,
        layers: str | None = None,
    ) -> None:
        """Start serving.

        Args:
            model, tokenizer: as for `interpret`.
            name: what the model is called; None: as its configuration says.
            host: the address to listen at. Any other than a loopback one needs a token, and gets one.
            port: 0: a free one.
            token: what clients must show. None: none on loopback, elsewhere a new one.
            names: more names that the server goes by, such as one of a proxy in front of it.
            opening: fields of the page's form that `url` fills in; see `opening.opening`.
            reader: a published reader that interprets, by its file, folder or hub id; see `interpret`.
            reader_adapter: a LoRA adapter that interprets.
            mapping: a file of maps by source layer, or of one affine map: embeddings go through theirs first.
            layers: what requests that do not say get, and the page at first. None: those that the reader was trained
                on, or those of the mapping, else all.
            lenses: fitted ones, by the names that clients give, beside the logit lens; see `mapping.lenses`.

        Raises:
            MissingPackageError: fastapi or uvicorn is not installed.
            ValueError: the model is in training mode, a lens is another model's, a reader or a mapping does not fit, or
                the port is none.
            OSError: the port is taken, or the address is not one of this machine.
        """
        check_packages()
        import uvicorn

        from .application import Served, make_application
        from .guard import LOOPBACK as NAMES
        from .guard import Guard, new_token
        from .readings import Readings
        from .scheduler import Scheduler

        check_evaluation_mode(model)
        for lens in (lenses or {}).values():
            lens.check(model)
        defaults = _defaults(model, tokenizer, reader, reader_adapter, mapping, layers)
        interpreter = model if defaults.adapter is None else defaults.adapter.on(model)
        is_local = host in (LOOPBACK, "localhost", "::1")
        self._socket = _listening(host, port)  # first: nothing is left behind where that fails
        self.token = token or (None if is_local else new_token())
        self._opening = dict(opening or {})
        self.port = int(self._socket.getsockname()[1])
        name = name or str(getattr(model.config, "name_or_path", "") or type(model).__name__)
        self.scheduler = Scheduler(interpreter)
        readings = Readings(SourceModel(model, tokenizer))
        served = Served(model, tokenizer, name, interpreter, self.scheduler, readings, defaults, lenses or {})
        app = Guard(
            make_application(served),
            hosts=[*NAMES, *names, *([] if is_local else (host, socket.gethostname(), socket.getfqdn()))],
            takes_addresses=not is_local,
            token=self.token,
        )
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        reached = {"0.0.0.0": LOOPBACK, "localhost": LOOPBACK, "::": "::1"}.get(host, host)
        self._host = f"[{reached}]" if ":" in reached else reached
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        token = f"?{urlencode({'token': self.token})}" if self.token else ""
        fragment = f"#{urlencode(self._opening)}" if self._opening else ""
        return f"http://{self._host}:{self.port}/{token}{fragment}"

    def _serve(self) -> None:
        """Signals belong to the main thread, so the server does not ask for them in this one."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._has_ended.set()

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Block until the server ends or `until()` is true."""
        # Polled: an interrupt that comes just as a lock is taken can leave it taken, and one that comes in the middle
        # of joining a thread has Python take the thread for ended.
        while not (self._has_ended.is_set() or until()):
            time.sleep(0.1)

    def close(self) -> None:
        """Stop serving; what is being computed is given up."""
        self.scheduler.close()  # first: streams then end with a reason
        self._server.should_exit = True
        self._has_ended.wait()
        self._thread.join()
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


def _defaults(
    model: nn.Module,
    tokenizer: Tokenizer,
    reader: str | Path | None,
    reader_adapter: str | Path | None,
    mapping: str | Path | None,
    layers: str | None,
) -> Defaults:
    """Raises ValueError."""
    n_layers = Limits.of(model).n_layers
    chosen = Selection.of(layers).resolve(n_layers + 1)
    if reader is not None:
        doubled = [
            name for name, given in (("reader_adapter", reader_adapter), ("mapping", mapping)) if given is not None
        ]
        if doubled:
            raise ValueError(
                f"the reader sets {' and '.join(doubled)}: leave {'it' if len(doubled) == 1 else 'them'} out"
            )
        return Defaults.of_reader(find_reader(reader), str(reader), model, tokenizer, layers)
    maps = None if mapping is None else MapsFile.read(Path(mapping))
    if maps is not None:
        hidden = model.get_input_embeddings().weight.shape[-1]
        check_spaces(maps, n_layers=n_layers, source_hidden=hidden, hidden=hidden)
        maps.check_model(model)
        if layers is not None:
            maps.check_layers(chosen)
    adapter = None if reader_adapter is None else Adapter.find(reader_adapter)
    return Defaults.of_maps(maps, adapter, layers)


def _listening(host: str, port: int) -> socket.socket:
    if not host or not 0 <= port < 2**16:
        raise ValueError(f"{host!r}, port {port}: give an address of this machine, and a port from 0 to {2**16 - 1}")
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
