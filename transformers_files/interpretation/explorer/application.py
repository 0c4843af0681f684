"""The HTTP interface: the page, and what it and other programs ask for. `/openapi.json` describes it.

Answers of `/interpret` and `/compare` are streams of server-sent events, each with JSON:

    begun     {"layers", "columns": [[index, text, kind]], "n_cells"}
    cells     {"cells": [[layer, token, mean relevancy, texts, relevancies, probabilities, trust]]}, in thousandths
    done      {"seconds"}
    failed    {"detail"}
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from torch import nn

from .. import __version__
from ..api import interpret_vectors
from ..engine.settings import DEFAULT_PROMPT, DEFAULTS
from ..models.chat_template import has_chat_template
from ..models.families import decoder_layers
from ..models.token_text import token_strings
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import BUILT_IN
from ..report.grid import columns_of
from ..report.page import cell_data
from ..results.calibration import BUILT_IN_CALIBRATION
from ..results.record import Record
from ..runs.job import Job
from ..surgery.modes import REPLACING_MODES
from .files import FORMATS, Answer
from .page import page
from .queries import CellsQuery, CompareQuery, LensQuery, ScoreQuery, TableQuery, TokenizeQuery, VectorsQuery
from .readouts import lens_cells, score_text
from .scheduler import Begun, BusyError, Computed, Failed, Finished, Message, Scheduler, Ticket, rough_first

SECONDS_TO_RETRY = 2


@dataclass(frozen=True)
class Served:
    """What the server works with."""

    model: nn.Module
    tokenizer: Tokenizer
    name: str
    """Of the model, for people and for `from_pretrained`."""
    scheduler: Scheduler
    batch_size: int


class StoppedError(RuntimeError):
    """Cells that were asked for will not come."""


def make_application(served: Served) -> FastAPI:
    """The application, without the guard around it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(served.scheduler.close)

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(title="llm-interpret", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    _add_routes(app, served)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    def answer(status: int, say: Callable[[Any], str], headers: dict[str, str] | None = None) -> Any:
        return lambda _, error: JSONResponse({"detail": say(error)}, status, headers)

    app.add_exception_handler(ValueError, answer(422, str))
    app.add_exception_handler(RequestValidationError, answer(422, _in_a_sentence))
    app.add_exception_handler(BusyError, answer(503, str, {"Retry-After": str(SECONDS_TO_RETRY)}))
    app.add_exception_handler(StoppedError, answer(500, str))


def _in_a_sentence(error: RequestValidationError) -> str:
    parts = []
    for one in error.errors()[:5]:
        where = ".".join(str(part) for part in one["loc"] if part != "body")
        parts.append(f"{where or 'the request'}: {one['msg']}")
    return "; ".join(parts)


def _add_routes(app: FastAPI, served: Served) -> None:
    model, tokenizer, scheduler = served.model, served.tokenizer, served.scheduler
    reading = asyncio.Lock()

    async def planned(query: CellsQuery) -> Job:
        """Tokenizers are not made for several threads, and a long prompt must not hold up the streams."""
        async with reading:
            return await asyncio.to_thread(query.job, model, tokenizer, served.batch_size)

    async def in_model_thread(function: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(scheduler.call(function))

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
        return {"status": "ok", "queued_cells": scheduler.waiting}

    @app.post("/tokenize")
    async def tokenize(query: TokenizeQuery) -> dict[str, Any]:
        """The tokens that the model sees of a prompt."""
        async with reading:
            ids = await asyncio.to_thread(query.token_ids, tokenizer)
            strings = token_strings(tokenizer, ids)
        columns = columns_of([(index, string, "prompt") for index, string in enumerate(strings)])
        tokens = [{"index": one.token_idx, "id": int(ids[one.token_idx]), "text": one.text} for one in columns]
        return {"tokens": tokens, "count": len(tokens)}

    @app.post("/interpret", response_class=StreamingResponse)
    async def interpret_cells(query: CellsQuery) -> StreamingResponse:
        """Interpret cells; they come as they are computed, a rough grid first. Close the stream to stop."""
        return await streamed(query)

    @app.post("/compare", response_class=StreamingResponse)
    async def compare(query: CompareQuery) -> StreamingResponse:
        """Interpret differences of two prompts; streamed as `/interpret`."""
        return await streamed(query)

    async def streamed(query: CellsQuery) -> StreamingResponse:
        job = await planned(query)
        messages = _Messages(job, query.identity())
        scheduler.submit(messages.ticket)
        return StreamingResponse(
            _events(job, messages), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @app.post("/table", response_class=Response)
    async def table(query: TableQuery) -> Response:
        """Cells as a file: CSV, Parquet, a report page, or the lines of Python that give the same."""
        job = await planned(query)
        form = FORMATS[query.format]
        records: list[Record] = []
        if form.needs_records:
            messages = _Messages(job, query.identity())
            scheduler.submit(messages.ticket)
            records = await messages.all_records()
        answer = Answer(query, served.name, query.spec(tokenizer), records)
        content = await asyncio.to_thread(form.write, answer)
        disposition = f'attachment; filename="interpretations.{form.suffix}"'
        return Response(content, media_type=form.media_type, headers={"Content-Disposition": disposition})

    @app.post("/lens")
    async def lens(query: LensQuery) -> dict[str, Any]:
        """The logit lens: what the model's own final norm and head make of hidden states."""
        return {"cells": await in_model_thread(lambda: lens_cells(model, tokenizer, query))}

    @app.post("/score")
    async def score(query: ScoreQuery) -> dict[str, Any]:
        """How probable a text is as the interpretation of a cell, with and without the embedding."""
        job = await planned(query)
        return await in_model_thread(lambda: score_text(model, tokenizer, job, query.text))

    @app.post("/vectors")
    async def vectors(query: VectorsQuery) -> dict[str, Any]:
        """Interpret vectors of any origin."""
        return {"cells": await in_model_thread(lambda: _vector_cells(served, query))}


def _about(served: Served) -> dict[str, Any]:
    return {
        "model": served.name,
        "n_layers": len(decoder_layers(served.model)),
        "hidden_size": served.model.get_input_embeddings().weight.shape[-1],
        "chat": has_chat_template(served.tokenizer),
        "interpretation_prompts": list(BUILT_IN),
        "replacing_modes": list(REPLACING_MODES),
        "defaults": {
            "interpretation_prompt": DEFAULT_PROMPT,
            "insert_layer": DEFAULTS.insert_layer,
            "replacing_mode": DEFAULTS.replacing_mode,
            "overlay_strength": DEFAULTS.overlay_strength,
            "guidance": DEFAULTS.guidance,
            "plausibility": DEFAULTS.plausibility,
            "deep_gain": DEFAULTS.deep_gain,
            "max_new_tokens": DEFAULTS.max_new_tokens,
        },
        "lenses": ["logit"],
        "version": __version__,
    }


class _Messages:
    """The messages of one ticket, from the model's thread to this event loop."""

    def __init__(self, job: Job, identity: str) -> None:
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        addresses = [address for chunk in range(job.plan.n_chunks) for address in job.plan.chunk(chunk)]
        self._addresses = addresses

        def send(message: Message) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, message)

        self.ticket = Ticket(job, rough_first(addresses), send, identity)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Up to the last. Whoever stops before it costs nothing more."""
        try:
            while True:
                message = await self._queue.get()
                yield message
                if isinstance(message, Finished | Failed):
                    return
        finally:
            self.ticket.cancel()

    async def all_records(self) -> list[Record]:
        """In the order of the plan. Raises StoppedError."""
        found: dict[tuple[Any, Any], Record] = {}
        async for message in self:
            if isinstance(message, Failed):
                raise StoppedError(message.reason)
            if isinstance(message, Computed):
                found |= {(record.layer_idx, record.token_idx): record for record in message.records}
        return [found[key] for key in sorted(found)]


async def _events(job: Job, messages: _Messages) -> AsyncIterator[str]:
    began = time.perf_counter()
    async for message in messages:
        match message:
            case Begun():
                columns = [[column.token_idx, column.text, column.source] for column in message.columns]
                yield _event("begun", layers=job.plan.layers, columns=columns, n_cells=job.plan.n_cells)
            case Computed():
                yield _event("cells", cells=[cell_data(record, BUILT_IN_CALIBRATION) for record in message.records])
            case Failed():
                yield _event("failed", detail=message.reason)
            case Finished():
                yield _event("done", seconds=round(time.perf_counter() - began, 3))


def _event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _vector_cells(served: Served, query: VectorsQuery) -> list[list[Any]]:
    settings = query.settings()
    results = interpret_vectors(
        served.model,
        served.tokenizer,
        _tensor(query.vectors),
        names=query.names,
        strength=query.strength,
        interpretation_prompt=query.spec(served.tokenizer),
        insert_layer=settings.insert_layer,
        replacing_mode=settings.replacing_mode,
        overlay_strength=settings.overlay_strength,
        guidance=settings.guidance,
        plausibility=settings.plausibility,
        max_new_tokens=settings.max_new_tokens,
        batch_size=served.batch_size,
    )
    return [cell_data(record, BUILT_IN_CALIBRATION) for record in results]


def _tensor(vectors: list[list[float]]) -> torch.Tensor:
    """Raises ValueError for vectors of several lengths."""
    if len(sizes := sorted({len(vector) for vector in vectors})) > 1:
        raise ValueError(f"the vectors have {', '.join(map(str, sizes))} numbers; give vectors of one size")
    return torch.tensor(vectors, dtype=torch.float32)
