"""Call a bulk HTTP endpoint with one text at a time, within its limits.

This example shows how to respect the limits of a remote service inside a batch function.

The service counts the words of several texts in one request. It runs in this process and has the limits of many paid
services: on the tokens in a request (413) and the requests in a second (429). Some requests fail (503).

* Tokens in a request: ``weigh`` and ``max_weight``. A text that is too long fails alone, before it is sent.
* Requests in a second: ``aiolimiter`` inside the batch function, so it counts requests and not calls.
* Failures: ``stamina`` inside the batch function, so a whole request is retried, not each of its calls.

Batching does not pay for a service that is limited by tokens only, or that takes one text in a request: concurrent
requests are as fast there, and each caller is answered sooner.

Run it with ``python examples/bulk_api.py``; it needs the packages ``aiolimiter``, ``httpx`` and ``stamina``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pydoc_data.topics import topics
from threading import Lock, Thread
from time import monotonic, perf_counter

import httpx
import stamina
from aiolimiter import AsyncLimiter

from batchify import microbatch

TEXTS = 150
# The limits of the service: tokens in a request, and requests in a second. Every tenth request fails.
MAX_TOKENS, MAX_REQUESTS, FAILING = 2000, 100, 10


# The requests by status, the times of the last ones, and a lock for both.
statuses: Counter[int] = Counter()
times: deque[float] = deque(maxlen=MAX_REQUESTS)
lock = Lock()


class Service(BaseHTTPRequestHandler):
    """Counts the words of each text."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a request."""
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            status = status_of(texts)
            statuses[status] += 1
        answer = json.dumps([len(text.split()) for text in texts]).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write no log."""


def status_of(texts: list[str]) -> int:
    """Apply the limits of the service."""
    if sum(map(tokens, texts)) > MAX_TOKENS:
        return 413
    if len(times) == MAX_REQUESTS and monotonic() - times[0] < 1:
        return 429
    times.append(monotonic())
    return 200 if sum(statuses.values()) % FAILING else 503


def tokens(text: str) -> int:
    """Return the number of tokens of a text: here its words."""
    return len(text.split())


class Client:
    """Sends requests within the rate limit, and again after a failure."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        # Half of the limit, because a limiter that was idle allows as many requests at once.
        self._limiter = AsyncLimiter(MAX_REQUESTS / 2, 1)

    @stamina.retry(on=httpx.HTTPError, wait_initial=0.01)
    async def post(self, texts: list[str]) -> list[int]:
        """Return the number of words of each text, from one request."""
        async with self._limiter:
            response = await self._client.post("/", json=texts)
        counts: list[int] = response.raise_for_status().json()
        return counts

    async def count_alone(self, text: str) -> int:
        """Return the number of words of a text, from a request of its own."""
        [words] = await self.post([text])
        return words

    @microbatch(max_size=256, weigh=tokens, max_weight=MAX_TOKENS, concurrency=4)
    async def count(self, texts: list[str]) -> list[int]:
        """Return the number of words of each text, from one request for all."""
        return await self.post(texts)


async def compare(address: str) -> None:
    """Count the words of all texts with and without batches, each text from a task of its own."""
    texts = [text for text in " ".join(topics.values()).split("\n\n") if text.strip()][:TEXTS]
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as http:
        client = Client(http)
        found = {}
        for name, call in (("alone", client.count_alone), ("batched", client.count)):
            statuses.clear()
            start = perf_counter()
            found[name] = await asyncio.gather(*map(call, texts))
            seconds, requests = perf_counter() - start, sum(statuses.values())
            print(f"{name:<8}{requests:>5} requests, {requests - statuses[200]:>2} failed {seconds:>7.2f} s")
        try:
            await client.count("too long " * MAX_TOKENS)
        except ValueError as error:
            print(f"\n{error}")
    stats = client.count.batch_stats
    print(f"calls made: {len(texts)}, total_items: {stats.total_items}, batches: {stats.total_batches}")
    if not found["alone"] == found["batched"] == [len(text.split()) for text in texts]:
        sys.exit("counts differ")
    print(f"All counts are right ({len(texts)} of {len(texts)}).")


def main() -> None:
    """Start the service, and compare."""
    # Retries are counted here and not logged.
    stamina.instrumentation.set_on_retry_hooks([])
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        asyncio.run(compare(f"http://127.0.0.1:{server.server_port}"))


if __name__ == "__main__":
    main()
