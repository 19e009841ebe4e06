"""A web service under load: clients in this process, and a server process for each entrant."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from time import perf_counter

from tests.bench import clock
from tests.bench.contest import AbsentError, Contest
from tests.bench.figures import percentile
from tests.bench.server import MAKERS

CLIENTS = 64


def web_contests(plan):
    """Measure requests to a FastAPI app on uvicorn, over persistent connections."""
    requests = plan.count(40)
    for kind in clock.LOOPS:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(Server("tests.bench.server", name, kind)) for name in MAKERS}
            yield Contest(
                f"{CLIENTS} clients of a FastAPI app on uvicorn with {kind}",
                "requests/s",
                {name: partial(_ask, server, requests) for name, server in servers.items()},
                tail="p99 ms",
                note="The function takes 2 ms a call and 0.05 ms an item, one call at a time. The window is 2 ms.",
            )


class Server:
    """A context manager that runs a server module in a process; the server starts before ``port()`` is called."""

    def __init__(self, *arguments):
        self._command = [sys.executable, "-m", *arguments]
        self._port = ""

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.communicate()

    def port(self):
        """Return the port when the server listens.

        Raises:
            AbsentError: the server cannot take part.
        """
        self._port = self._port or self._process.stdout.readline().strip() or "the server has ended"
        if not self._port.isdigit():
            raise AbsentError(self._port)
        return int(self._port)


def _ask(server, requests):
    """Make all requests, and return their rate and the 99th percentile of their latencies in milliseconds."""
    port = server.port()

    async def main():
        await _clients(port, 2)
        latencies = await _clients(port, requests)
        # All clients are always waiting for an answer.
        return CLIENTS * len(latencies) / sum(latencies), 1000 * percentile(latencies, 99)

    return clock.on_loop("asyncio", main)


async def _clients(port, requests):
    latencies = []

    async def client(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for item in range(number, number + requests):
            start = perf_counter()
            answer = await exchange(reader, writer, f"GET /{item} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            latencies.append(perf_counter() - start)
            clock.check(answer, (200, str(item).encode()))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*[client(number) for number in range(CLIENTS)])
    return latencies


async def exchange(reader, writer, request):
    """Send a request over a persistent connection; return the status and the body of the response."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].split(None, 1)[:1]
    return int(head.split(None, 2)[1]), await reader.readexactly(int(*length))


def post(path, body):
    """Return a request that sends ``body`` as JSON."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"{head}\r\n\r\n".encode() + content
