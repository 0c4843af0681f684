"""Several clients at once: each gets its own cells, engine calls are shared, and cancelled requests cost nothing."""

from __future__ import annotations

import json
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from explorer_client import Client
from transformers.interpretation import InterpretationPromptSpec, interpret
from transformers.interpretation.explorer import Explorer, readings, scheduler
from transformers.interpretation.report.page import cell_data
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION

ASKED = {"raw": True, "interpretation_prompt": {"text": "x: _ is"}, "max_new_tokens": 3, "tokens": "0,last"}
SPEC = InterpretationPromptSpec("custom", text="x: _ is")


def expected(tiny, prompt, **options):
    results = interpret(*tiny, prompt, **{**ASKED, "interpretation_prompt": SPEC, **options})
    return sorted(cell_data(record, BUILT_IN_CALIBRATION) for record in results)


@contextmanager
def held(explorer):
    """The model's thread waits, so that requests gather; then it goes on."""
    waits, goes_on = threading.Event(), threading.Event()
    explorer.scheduler.call(lambda: (waits.set(), goes_on.wait()))
    assert waits.wait(60)
    try:
        yield
    finally:
        goes_on.set()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def calls(monkeypatch):
    """How many cells each engine call had."""
    sizes = []

    def noted(model, cells, *args, **options):
        sizes.append(len(cells))
        return real(model, cells, *args, **options)

    real = scheduler.interpret_chunk
    monkeypatch.setattr(scheduler, "interpret_chunk", noted)
    return sizes


def ask_together(explorer, bodies):
    """All are in the queue before the first is served."""
    client = Client(explorer.url)
    with ThreadPoolExecutor(len(bodies)) as threads:
        with held(explorer):
            found = [threads.submit(lambda body=body: sorted(client.cells(body))) for body in bodies]
            until(lambda: len(explorer.scheduler._turns) == len(bodies))
        return [one.result() for one in found]


def test_two_clients_get_their_own_cells_in_one_engine_call(explorer, tiny, calls):
    found = ask_together(explorer, [{**ASKED, "prompt": "abc"}, {**ASKED, "prompt": "xyzw"}])
    assert found == [expected(tiny, "abc"), expected(tiny, "xyzw")]
    assert calls == [20]


@pytest.mark.parametrize("other", [{"guidance": 2.0}, {"interpretation_prompt": {"text": "so _ is"}}, {"samples": 1}])
def test_what_is_interpreted_otherwise_has_a_call_of_its_own(explorer, calls, other):
    ask_together(explorer, [{**ASKED, "prompt": "abc"}, {**ASKED, "prompt": "xyzw", **other}])
    assert calls == [10, 10]


def test_a_small_request_does_not_wait_for_a_large_one(explorer, calls):
    large = {**ASKED, "prompt": "abcdefgh" * 12, "tokens": "all"}
    finished = []

    def ask(body):
        client.cells(body)
        finished.append(body)

    client, small = Client(explorer.url), {**ASKED, "prompt": "xyz"}
    with ThreadPoolExecutor(2) as threads, held(explorer):
        threads.submit(ask, large)
        until(lambda: explorer.scheduler.waiting > 400)
        threads.submit(ask, small)
        until(lambda: explorer.scheduler.waiting > 490)
    assert finished == [small, large]
    assert len(calls) > 1


def test_what_was_computed_is_remembered_and_prompts_are_read_once(explorer, calls, monkeypatch):
    read = []

    def noted(*given):
        read.append(given[1].input_ids)
        return real(*given)

    real = readings.SourceActivations
    monkeypatch.setattr(readings, "SourceActivations", noted)
    client = Client(explorer.url)
    whole = client.cells({**ASKED, "prompt": "abc", "tokens": "all"})
    assert sum(calls) == len(whole) == 5 * 4
    again = client.cells({**ASKED, "prompt": "abc", "tokens": "1", "layers": "2"})
    assert again == [cell for cell in whole if cell[:2] == [2, 1]]
    assert sum(calls) == 20 and len(read) == 1
    client.cells({**ASKED, "prompt": "abc", "tokens": "1", "layers": "2", "overlay_strength": 0.5})
    assert sum(calls) == 21 and len(read) == 1


def test_few_prompts_are_kept(explorer, tiny, monkeypatch):
    monkeypatch.setattr(readings, "CAPTURED_BYTES", 1)  # so that layers are held one by one, too
    client = Client(explorer.url)
    for prompt in [*"abcdefghijkl", "a"]:
        assert sorted(client.cells({**ASKED, "prompt": prompt + "x"})) == expected(tiny, prompt + "x")


def test_a_client_that_goes_away_costs_nothing_more(explorer, calls, monkeypatch):
    monkeypatch.setattr(scheduler.Pace, "cells", lambda *_: 4)
    body = {**ASKED, "prompt": "abcdefgh" * 12, "tokens": "all"}
    with Client(explorer.url).stream("interpret", body) as events:
        assert [next(events)[0], next(events)[0]] == ["begun", "cells"]
    until(lambda: explorer.scheduler.waiting == 0)
    assert sum(calls) < 400 and not explorer.scheduler._held


@pytest.mark.parametrize("path", ["table", "lens", "score"])
def test_a_client_that_does_not_wait_for_its_answer_costs_nothing(explorer, calls, path):
    body = {"prompt": "abcdefgh", "raw": True, "layers": 1, "tokens": 0}
    body |= {"table": {"max_new_tokens": 3}, "score": {"text": "is"}, "lens": {}}[path]
    asked = []
    with held(explorer):
        connection = HTTPConnection("127.0.0.1", explorer.port)
        connection.request("POST", f"/{path}", json.dumps(body), {"Content-Type": "application/json"})
        until(lambda: explorer.scheduler.waiting == 1 or explorer.scheduler._calls)
        asked += [future for future, _ in explorer.scheduler._calls]
        connection.close()
        until(lambda: not explorer.scheduler._held and all(future.cancelled() for future in asked))
    assert Client(explorer.url).get("health") == (200, {"status": "ok", "queued_cells": 0})
    assert not calls


def test_a_failure_is_its_own_clients_alone(explorer, tiny, monkeypatch, caplog):
    real = scheduler.interpret_chunk

    def failing(model, cells, *args, **options):
        if any(cell.depth == 0.25 for cell in cells):
            raise RuntimeError("the device is\non fire")
        return real(model, cells, *args, **options)

    monkeypatch.setattr(scheduler, "interpret_chunk", failing)
    client = Client(explorer.url)

    def ask(layers):
        with client.stream("interpret", {**ASKED, "prompt": "abc", "layers": layers}) as events:
            return list(events)

    with ThreadPoolExecutor(2) as threads:
        with held(explorer):
            found = [threads.submit(ask, layers) for layers in ("1,3", "0,2")]
            until(lambda: len(explorer.scheduler._turns) == 2)
        bad, good = (one.result() for one in found)
    assert bad[-1] == ("failed", {"detail": "the model failed: RuntimeError: the device is on fire"})
    cells = sorted(cell for name, data in good if name == "cells" for cell in data["cells"])
    assert cells == expected(tiny, "abc", layers="0,2") and good[-1][0] == "done"
    assert client.post("table", {**ASKED, "prompt": "abc", "layers": 1})[0] == 500
    assert sorted(client.cells({**ASKED, "prompt": "xy", "layers": 0})) == expected(tiny, "xy", layers=0)


def test_a_source_that_cannot_be_read_is_told(explorer, tiny, monkeypatch):
    def failing(*_):
        raise MemoryError("no room")

    client = Client(explorer.url)
    with monkeypatch.context() as broken:
        broken.setattr(readings, "SourceActivations", failing)
        with client.stream("interpret", {**ASKED, "prompt": "abc"}) as events:
            assert list(events) == [("failed", {"detail": "the model failed: MemoryError: no room"})]
    assert sorted(client.cells({**ASKED, "prompt": "abc"})) == expected(tiny, "abc")


def test_the_queue_is_bounded(explorer, monkeypatch):
    monkeypatch.setattr(explorer.scheduler, "_most_cells", 25)
    client = Client(explorer.url)
    with held(explorer), ExitStack() as open_ones:
        for prompt in ("abc", "xyz"):
            events = open_ones.enter_context(client.stream("interpret", {**ASKED, "prompt": prompt}))
        status, answer = client.post("interpret", {**ASKED, "prompt": "abc"})
        assert status == 503
        assert answer["detail"].startswith("20 cells are being computed for others and 10 more are too many; try")
        assert (
            client.post("interpret", {**ASKED, "prompt": "abc", "tokens": "all", "layers": "0,1,2,3,4,0:4"})[0] == 503
        )
        status, answer = client.post("interpret", {**ASKED, "prompt": "abcdef", "tokens": "all"})
        assert status == 422 and answer["detail"].startswith("35 cells are asked for, and at most 25 can be; choose")
    del events
    until(lambda: not explorer.scheduler._held)
    assert len(client.cells({**ASKED, "prompt": "abc"})) == 10


def test_the_queue_of_other_questions_is_bounded(explorer, monkeypatch):
    monkeypatch.setattr(scheduler, "MOST_CALLS", 0)
    status, answer = Client(explorer.url).post("lens", {"prompt": "abc"})
    assert status == 503 and answer["detail"] == "0 requests are waiting for the model; try again soon"


def test_streams_end_with_a_reason_when_the_server_does(tiny):
    explorer = Explorer(*tiny)
    with Client(explorer.url).stream("interpret", {**ASKED, "prompt": "abcdefgh" * 12, "tokens": "all"}) as events:
        assert next(events)[0] == "begun"
        closing = threading.Thread(target=explorer.close)
        closing.start()
        rest = list(events)
        closing.join(60)
    assert rest[-1] in [("failed", {"detail": "the server is being stopped"}), ("done", rest[-1][1])]
    assert not closing.is_alive()
    with pytest.raises(scheduler.StoppedError, match="the server is being stopped"):
        explorer.scheduler.call(list)


def test_two_hundred_clients_at_once(explorer, tiny, calls):
    """None is lost, and memory does not grow with their number beyond what their answers take."""
    prompts = ["".join(chr(97 + (number // 26**place) % 26) for place in range(3)) for number in range(200)]
    client = Client(explorer.url)
    options = {"tokens": "last", "layers": "1,3"}

    def ask(prompt):
        return sorted(client.cells({**ASKED, **options, "prompt": prompt}))

    with ThreadPoolExecutor(200) as threads:
        list(threads.map(ask, prompts[:20]))
        before = resident()
        found = list(threads.map(ask, prompts))
    assert found == [expected(tiny, prompt, **options) for prompt in prompts]
    assert resident() - before < 200 * 2**20
    assert len(calls) < 200
    assert not explorer.scheduler._held and len(explorer.scheduler._memory._kept) == 400
    assert client.get("health") == (200, {"status": "ok", "queued_cells": 0})


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
