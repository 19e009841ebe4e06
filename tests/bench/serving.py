"""The service of the examples under load: clients in this process, a server in another for each way to serve.

Every prediction is compared with what the model says to that image alone, and after each run the database holds what
was told and nothing else.
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
from tests.bench.contest import AbsentError, Contest, Entrant
from tests.bench.figures import OURS
from tests.bench.web import Server, exchange, post

# Connections, and how many requests each of them makes in a run.
CONNECTIONS = {1: 200, 16: 40, 128: 8}
# ... before it, which does not count.
WARM = 1


def service_contests(plan):
    """Let clients ask for digits, and tell them, each over a connection that it keeps."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        served = {}
        for number, way in enumerate(WAYS):
            database = folder / f"{number}.db"
            served[way] = Served(stack.enter_context(Server("tests.bench.app", way, str(database))), database)
        for one in served.values():
            # Nobody is to be measured while another one still trains its model.
            with suppress(AbsentError):
                one.server.port()
        for what, do, ways in ("ask for digits", _ask, WAYS), ("tell digits", _tell, (ALONE, OURS)):
            for connections, requests in CONNECTIONS.items():
                load = Load(connections, plan.count(requests))
                yield _contest(what, load, {way: partial(do, served[way]) for way in ways})


@dataclass(frozen=True)
class Load:
    """How many connections there are, and how many requests each of them makes, one after the other."""

    connections: int
    requests: int


@dataclass(frozen=True)
class Served:
    """One way to serve: its server, its database, and what should be in there."""

    server: Server
    database: Path
    told: Counter = field(default_factory=Counter)


def _contest(what, load, ways):
    entrants = {way: Entrant(partial(do, load, _rate), partial(do, load, _latencies)) for way, do in ways.items()}
    title = f"{load.connections} connection{'s' * (load.connections > 1)} {what}"
    return Contest(title, "requests/s", entrants, ALONE)


def _rate(latencies, seconds):
    return len(latencies) / seconds


def _latencies(latencies, seconds):
    return latencies


@cache
def _digits():
    """Return images, each with the digit that the model sees in it alone."""
    digits = example("digits")
    images, _ = digits.learn()
    return [(image.tolist(), digits.read_alone(image)) for image in images]


def _ask(served, load, told):
    requests = [(post("/predict", image), (200, str(digit).encode())) for image, digit in _digits()]
    return _run(served, load, told, requests)


def _tell(served, load, told):
    rows = [(json.dumps(image), digit) for image, digit in _digits()]
    requests = [(post("/feedback", {"image": image, "digit": digit}), (204, b"")) for image, digit in _digits()]
    outcome = _run(served, load, told, requests)
    for requests_each in (WARM, load.requests):
        served.told.update(rows[place % len(rows)] for place in range(load.connections * requests_each))
    with closing(sqlite3.connect(served.database)) as database:
        clock.check(Counter(database.execute("SELECT image, digit FROM feedback")), served.told)
    return outcome


def _run(served, load, told, requests):
    """Make the requests of a run; return what ``told`` makes of their latencies and of how long all took."""
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
        return told(*await clients(load.requests))

    return clock.on_loop("asyncio", main)
