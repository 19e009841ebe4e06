"""The service of the examples under load: clients in this process, and a server process for each way to serve.

Every prediction is compared with that of the model for the same image alone. After each run, the database must contain
exactly the feedback that was sent.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.bench import clock
from tests.bench.app import ALONE, WAYS, example
from tests.bench.contest import AbsentError, Contest
from tests.bench.figures import OURS, percentile
from tests.bench.web import Server, exchange, post

# Connections -> requests of each connection in a run.
CONNECTIONS = {1: 200, 16: 40, 128: 8}
# Requests of each connection before a run, which do not count.
WARM = 1


def service_contests(plan):
    """Measure requests for predictions and for feedback, over persistent connections."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        served = {}
        for number, way in enumerate(WAYS):
            database = folder / f"{number}.db"
            served[way] = Served(stack.enter_context(Server("tests.bench.app", way, str(database))), database)
        for one in served.values():
            # No server is measured while another one still trains its model.
            with suppress(AbsentError):
                one.server.port()
        for title, do, ways in ("request predictions", _predict, WAYS), ("send feedback", _save, (ALONE, OURS)):
            for connections, requests in CONNECTIONS.items():
                load = Load(connections, plan.count(requests))
                yield _contest(title, load, {way: partial(do, served[way]) for way in ways})


@dataclass(frozen=True)
class Load:
    """The number of connections, and the number of consecutive requests of each."""

    connections: int
    requests: int


@dataclass(frozen=True)
class Served:
    """One way to serve: its server, its database, and the rows that the database must contain."""

    server: Server
    database: Path
    rows: Counter = field(default_factory=Counter)


def _contest(requests, load, ways):
    entrants = {way: partial(do, load) for way, do in ways.items()}
    title = f"{load.connections} connection{'s' * (load.connections > 1)} {requests}"
    return Contest(title, "requests/s", entrants, ALONE, tail="p50 ms")


@cache
def _digits():
    """Return images, each with the digit that the model predicts for it alone."""
    digits = example("digits")
    images, _ = digits.learn()
    return [(image.tolist(), digits.read_alone(image)) for image in images]


def _predict(served, load):
    requests = [(post("/predict", image), (200, str(digit).encode())) for image, digit in _digits()]
    return _run(served, load, requests)


def _save(served, load):
    rows = [(json.dumps(image), digit) for image, digit in _digits()]
    requests = [(post("/feedback", {"image": image, "digit": digit}), (204, b"")) for image, digit in _digits()]
    outcome = _run(served, load, requests)
    for requests_each in (WARM, load.requests):
        served.rows.update(rows[place % len(rows)] for place in range(load.connections * requests_each))
    with closing(sqlite3.connect(served.database)) as database:
        clock.check(Counter(database.execute("SELECT image, digit FROM feedback")), served.rows)
    return outcome


def _run(served, load, requests):
    """Make the requests of a run; return their rate, and the median of their latencies in milliseconds."""
    port = served.server.port()

    async def client(first, count, latencies):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for place in range(first, first + count):
            request, expected = requests[place % len(requests)]
            start = perf_counter()
            answer = await exchange(reader, writer, request)
            latencies.append(perf_counter() - start)
            clock.check(answer, expected)
        writer.close()
        await writer.wait_closed()

    async def clients(count):
        latencies = []
        start = perf_counter()
        await asyncio.gather(*[client(count * number, count, latencies) for number in range(load.connections)])
        return latencies, perf_counter() - start

    async def main():
        await clients(WARM)
        latencies, seconds = await clients(load.requests)
        return len(latencies) / seconds, 1000 * percentile(latencies, 50)

    return clock.on_loop("asyncio", main)
