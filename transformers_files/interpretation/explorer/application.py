"""The HTTP interface: the page, and what it and other programs ask for. `/openapi.json` describes it.

Answers of `/interpret` and `/compare` are streams of server-sent events, each with JSON:

    begun     {"layers", "columns": [[index, text, kind]], "n_cells"}
    cells     {"cells": [[layer, token, mean relevancy, texts, relevancies, probabilities, trust]]}, in thousandths;
              a cell that went wrong is [layer, token, what]; of samples also "samples": [their numbers]
    done      {"seconds"}
    failed    {"detail"}
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from torch import nn

from .. import __version__
from ..mapping.lenses import Lens
from ..models.chat_template import has_chat_template
from ..models.families import decoder_layers
from ..models.token_text import token_strings
from ..models.tokenizer import Tokenizer
from ..report.grid import columns_of
from ..results.record import Record
from ..runs.job import Job
from ..runs.source_model import SourceModel
from ..surgery.modes import REPLACING_MODES
from .defaults import Defaults
from .failures import AsciiResponse, add_error_handlers
from .files import FORMATS, Answer
from .page import page
from .queries import LOGIT, CellsQuery, CompareQuery, LensQuery, ScoreQuery, TableQuery, TokenizeQuery, VectorsQuery
from .readings import Readings
from .readouts import lens_cells, score_text
from .scheduler import Scheduler
from .streams import EventStream, Listener, cells_of
from .work import GridWork, VectorWork

T = TypeVar("T")
CLIENT_GONE = 499
"""The status of answers that nobody reads."""


@dataclass(frozen=True)
class Served:
    """What the server works with."""

    model: nn.Module
    tokenizer: Tokenizer
    name: str
    """Of the model, for people and for `from_pretrained`."""
    interpreter: nn.Module
    """The same model, with a reader's adapter if there is one; the scheduler's."""
    scheduler: Scheduler
    readings: Readings
    """Used in the scheduler's thread alone."""
    defaults: Defaults = field(default_factory=Defaults)
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    """Fitted ones, by name."""


def make_application(served: Served) -> FastAPI:
    """The application, without the guard around it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(served.scheduler.close)

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(
        title="llm-interpret",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        default_response_class=AsciiResponse,
    )
    add_error_handlers(app)
    _add_routes(app, served)
    return app


def _add_routes(app: FastAPI, served: Served) -> None:
    model, tokenizer, scheduler = served.model, served.tokenizer, served.scheduler
    interpreter, defaults = served.interpreter, served.defaults
    source = SourceModel(model, tokenizer, defaults.mapping)
    reading = asyncio.Lock()

    async def planned(query: CellsQuery) -> Job:
        """Tokenizers are not made for several threads, and a long prompt must not hold up the streams."""
        async with reading:
            job = await asyncio.to_thread(query.job, interpreter, source, served.readings, defaults)
        scheduler.check_size(job.plan.n_cells)
        return job

    async def listening(query: CellsQuery) -> Listener:
        return Listener(scheduler, GridWork(await planned(query)))

    async def all_records(request: Request, listener: Listener) -> list[Record] | None:
        try:
            return await _unless_gone(request, listener.records())
        finally:
            listener.leave()

    async def in_model_thread(request: Request, function: Callable[[], T]) -> T | None:
        return await _unless_gone(request, asyncio.wrap_future(scheduler.call(function)))

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        content, policy = page(_about(served))
        return HTMLResponse(content, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    @app.get("/models")
    async def models() -> dict[str, Any]:
        """The model, and what can be chosen."""
        return _about(served)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server is there, and how much it has to do."""
        return {"status": "stopping" if scheduler.is_closed else "ok", "queued_cells": scheduler.waiting}

    @app.post("/tokenize")
    async def tokenize(query: TokenizeQuery) -> dict[str, Any]:
        """The tokens that the model sees of a prompt."""
        async with reading:
            ids = await asyncio.to_thread(query.token_ids, tokenizer)
            strings = token_strings(tokenizer, ids)
        columns = columns_of([(index, string, "prompt") for index, string in enumerate(strings)])
        tokens = [{"index": one.token_idx, "id": int(ids[one.token_idx]), "text": one.text} for one in columns]
        return {"tokens": tokens, "count": len(tokens)}

    @app.post("/interpret", response_class=EventStream)
    async def interpret_cells(query: CellsQuery) -> EventStream:
        """Interpret cells; they come as they are computed, a rough grid first. Close the stream to stop."""
        return EventStream(await listening(query.filled(defaults)))

    @app.post("/compare", response_class=EventStream)
    async def compare(query: CompareQuery) -> EventStream:
        """Interpret differences of two prompts; streamed as `/interpret`."""
        return EventStream(await listening(query.filled(defaults)))

    @app.post("/table", response_class=Response)
    async def table(query: TableQuery, request: Request) -> Response:
        """Cells as a file: CSV, Parquet, a report page, or the lines of Python that give the same."""
        form, query = FORMATS[query.format], query.filled(defaults)
        records: list[Record] | None = []
        if form.needs_records:
            records = await all_records(request, await listening(query))
        else:
            await planned(query)  # which refuses what cannot be done
        if records is None:
            return Response(status_code=CLIENT_GONE)
        content = await asyncio.to_thread(
            form.write, Answer(query, served.name, query.spec(defaults.prompts), str(model.dtype), records, defaults)
        )
        disposition = f'attachment; filename="interpretations.{form.suffix}"'
        return Response(content, media_type=form.media_type, headers={"Content-Disposition": disposition})

    @app.post("/lens")
    async def lens(query: LensQuery, request: Request) -> dict[str, Any]:
        """What the model's own final norm and head make of hidden states: the logit lens, or a fitted one."""
        return {"cells": await in_model_thread(request, lambda: lens_cells(model, tokenizer, query, served.lenses))}

    @app.post("/score")
    async def score(query: ScoreQuery, request: Request) -> dict[str, Any]:
        """How probable a text is as the interpretation of a cell, with and without the embedding."""
        job = await planned(query.filled(defaults))
        return await in_model_thread(request, lambda: score_text(interpreter, tokenizer, job, query.text)) or {}

    @app.post("/vectors")
    async def vectors(query: VectorsQuery, request: Request) -> dict[str, Any]:
        """Interpret vectors of any origin: cells as those of a stream, with null for the layer."""
        scheduler.check_size(len(query.vectors) * max(1, query.samples))
        async with reading:
            job = await asyncio.to_thread(query.filled(defaults).job, interpreter, tokenizer, defaults)
        return cells_of(await all_records(request, Listener(scheduler, VectorWork(job))) or [])


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """What the work gives; when the client goes before, it is cancelled, and there is nothing."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _about(served: Served) -> dict[str, Any]:
    defaults = served.defaults
    return {
        "model": served.name,
        "n_layers": len(decoder_layers(served.model)),
        "hidden_size": served.model.get_input_embeddings().weight.shape[-1],
        "chat": has_chat_template(served.tokenizer),
        "interpretation_prompts": defaults.prompt_names,
        "replacing_modes": list(REPLACING_MODES),
        "defaults": {**defaults.settings, "layers": defaults.layers, "question": defaults.question},
        "reader": defaults.description,
        "lenses": [LOGIT, *served.lenses],
        "version": __version__,
    }
