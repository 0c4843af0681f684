"""How soon the live page shows its first cells, and all of them: a prompt of 16 tokens, every layer, default settings.

    python scripts/benchmark_explorer.py                        # the embedded model, one client, then two
    python scripts/benchmark_explorer.py --model meta-llama/Llama-3.1-8B-Instruct --clients 8

A client is a program that reads the stream of cells over a connection, as the page does.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from typing import Any

from common.measured_model import load
from common.options import MODEL, add_options, parse_options
from common.program import run_program

TOKENS = 16


@dataclass(frozen=True)
class Times:
    """Of one request, in seconds after it was sent."""

    first: float
    last: float
    cells: int


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status as of every program."""
    return run_program(_parse, measure, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, *MODEL)
    parser.add_argument("--clients", type=int, default=2, help="at once (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each (default: %(default)s)")
    return parse_options(parser, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Print the medians."""
    from transformers.interpretation.explorer import Explorer

    loaded = load(arguments)
    with Explorer(loaded.model, loaded.tokenizer, name=loaded.name) as explorer:
        ask(explorer.port, _prompt(loaded.tokenizer, 0), layers="0")  # a first request, for whatever is done only once
        numbers = count(1)
        for clients in dict.fromkeys((1, arguments.clients)):
            _tell(
                clients, [_round(explorer.port, loaded.tokenizer, clients, numbers) for _ in range(arguments.repeats)]
            )
    return 0


def _round(port: int, tokenizer: Any, clients: int, numbers: Iterator[int]) -> list[Times]:
    """Clients that ask at the same time, each for a prompt that nobody has asked for."""
    prompts = [_prompt(tokenizer, next(numbers)) for _ in range(clients)]
    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(lambda prompt: ask(port, prompt), prompts))


def _prompt(tokenizer: Any, number: int) -> str:
    """Random words, different for each number: equal tokens have equal states at layer 0, which would be remembered."""
    words = sorted(token for token in tokenizer.get_vocab() if re.fullmatch("[Ġ▁][a-z]{3,9}", token))
    text = tokenizer.convert_tokens_to_string(random.Random(number).sample(words, 2 * TOKENS))
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:TOKENS])


def ask(port: int, prompt: str, layers: str = "all") -> Times:
    """One request, read to its end."""
    connection = HTTPConnection("127.0.0.1", port, timeout=3600)
    body = json.dumps({"prompt": prompt, "raw": True, "layers": layers})
    began = time.perf_counter()
    connection.request("POST", "/interpret", body, {"Content-Type": "application/json"})
    arrived = [(time.perf_counter() - began, len(data["cells"])) for data in _cells(connection.getresponse())]
    connection.close()
    return Times(arrived[0][0], arrived[-1][0], sum(cells for _, cells in arrived))


def _cells(lines: Any) -> Iterator[dict[str, Any]]:
    event = ""
    for line in lines:
        field, _, value = line.decode().rstrip().partition(": ")
        event = value if field == "event" else event
        if field == "data" and event == "failed":
            raise RuntimeError(value)
        if field == "data" and event == "cells":
            yield json.loads(value)


def _tell(clients: int, rounds: Sequence[Sequence[Times]]) -> None:
    """Medians over the rounds, each of which is as slow as its slowest client."""
    first, last = (
        statistics.median(max(getattr(one, name) for one in times) for times in rounds) for name in ("first", "last")
    )
    rate = statistics.median(sum(one.cells for one in times) / max(one.last for one in times) for times in rounds)
    who = "one client" if clients == 1 else f"{clients} clients at once, the slowest of them"
    print(f"{who}: first cells after {first:.2f} s, all {rounds[0][0].cells} after {last:.1f} s; {rate:.0f} cells/s")


if __name__ == "__main__":
    sys.exit(main())
