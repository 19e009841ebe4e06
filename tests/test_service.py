"""The service answers each request with what belongs to it, and says so where it cannot; also when told to end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import pytest

import batchify

EXAMPLES = Path(__file__).parent.parent / "examples"
# Whatever waits for the service gives up after this many seconds, ...
PATIENCE = 20
# ... and no service lives longer than this many, which is also its time limit where a test sets none.
LIFE = 60

SERVICE = "import service; service.main()"
# The model computes nothing before its standard input is closed.
GATED = """
import os, digits, service
def predict(images, direct=digits.model.predict):
    os.read(0, 1)
    return direct(images)
digits.model.predict = predict
service.main()
"""
CLOSED = "import service; service.predict.close(); service.main()"
# NumPy starts threads, and with those about, fork() warns in other tests: it is for other processes.
DIRECT = """
import digits, json
images, _ = digits.learn()
print(json.dumps([images.tolist(), digits.model.predict(images).tolist()]))
"""


def start(code, *arguments, **variables):
    """Start a process that runs ``code`` beside the examples, with the batchify that is tested here."""
    path = [str(EXAMPLES), str(Path(batchify.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8")


@pytest.fixture(scope="module")
def images():
    """Return images, and the digits that the model sees in them when it is called directly."""
    with start(DIRECT) as process:
        output, errors = process.communicate(timeout=LIFE)
    assert (0, "") == (process.returncode, errors)
    images, digits = json.loads(output)
    return list(zip(images, digits, strict=True))


class Response(NamedTuple):
    """What the service answers, without the headers that say nothing here."""

    status: int
    retry_after: str | None
    text: str


async def fetch(port, path, body=None):
    """Return the response to one request on a connection of its own; a ``ConnectionError`` if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        method = "POST" if body else "GET"
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{content}\r\n{body or ''}".encode()
        )
        head, _, text = (await asyncio.wait_for(reader.read(), PATIENCE)).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    if not head:
        raise ConnectionResetError
    retry_after = re.search(r"(?im)^retry-after: (.*?)\r?$", head)
    return Response(int(head.split()[1]), retry_after and retry_after[1], text)


class Service:
    """A service in a process of its own, and its clients."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        # Some systems let a process have no more than 256 files open.
        self._connections = asyncio.Semaphore(100)

    def open(self):
        """Let the model compute."""
        self.process.stdin.close()

    def ask(self, image):
        """Ask for the digit in an image, in a task of its own."""

        async def ask():
            async with self._connections:
                return await fetch(self.port, "/predict", json.dumps(image))

        return asyncio.create_task(ask())

    async def number(self, metric):
        """Return a metric of the batched function, the sum over its other labels."""
        _, _, text = await fetch(self.port, "/metrics")
        return sum(float(value) for value in re.findall(rf'^{metric}{{batcher="predict".*}} (.+)$', text, re.MULTILINE))

    async def until(self, metric, number):
        """Wait until a metric has a value."""

        async def look():
            while number != await self.number(metric):
                pass

        await asyncio.wait_for(look(), PATIENCE)

    async def until_it_ends(self):
        """Wait until it takes no connection any more."""

        async def knock():
            while True:
                await fetch(self.port, "/healthz")

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(knock(), PATIENCE)

    async def fill(self, images):
        """Ask for one digit, which the model is busy with then, and for others, which wait; return who asks."""
        asking = [self.ask(images[0])]
        await self.until("batchify_running_items", 1)
        asking += [self.ask(image) for image in images[1:]]
        await self.until("batchify_pending_items", len(images) - 1)
        return asking


@contextmanager
def alive(code, **variables):
    """Start a service, and give it with its port; in the end it has not complained, and leaves as it was told."""
    with start(code, "--port", "0", **{"TIME_LIMIT": str(LIFE), **variables}) as process:
        timer = Timer(LIFE, process.kill)
        timer.start()
        try:
            lines = iter(process.stderr.readline, "")
            found = (re.search(r"running on http://127.0.0.1:(\d+)", line) for line in lines)
            yield process, int(next(filter(None, found))[1])
            process.stdin.close()
            process.terminate()
            errors = process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
            timer.cancel()
            timer.join()
    assert "Application shutdown complete." in errors
    assert "ERROR" not in errors
    # It ends by the signal that told it to, as uvicorn has it, after all else is done.
    assert -signal.SIGTERM == process.returncode


@asynccontextmanager
async def serve(code=SERVICE, **variables):
    """Run a service that is ready."""
    with alive(code, **variables) as (process, port):
        assert 200 == (await fetch(port, "/healthz")).status
        yield Service(process, port)


async def answers(asking):
    """Return the status and the content of each response."""
    return [(response.status, json.loads(response.text)) for response in await asyncio.gather(*asking)]


def test_every_request_gets_its_own_answer(images):
    """Hundreds of requests at once get what the model says to each image alone, from fewer batches than requests."""

    async def main():
        async with serve() as service:
            assert [(200, digit) for _, digit in images] == await answers([service.ask(image) for image, _ in images])
            assert len(images) == await service.number("batchify_answered_items_total")
            assert 0 < await service.number("batchify_batches_total") < len(images)

    assert 300 < len(images)
    asyncio.run(main())


def test_overload_is_refused(images):
    """Without room a request gets 503 and is told when to come again; those that have room get their answers."""
    room = 8
    accepted, refused = images[: 1 + room], images[1 + room : 41]

    async def main():
        async with serve(GATED, MAX_PENDING=str(room)) as service:
            asking = await service.fill([image for image, _ in accepted])
            responses = await asyncio.gather(*[service.ask(image) for image, _ in refused])
            assert [(503, "1")] * len(refused) == [(response.status, response.retry_after) for response in responses]
            assert len(refused) == await service.number("batchify_rejected_items_total")
            service.open()
            assert [(200, digit) for _, digit in accepted] == await answers(asking)

    asyncio.run(main())


def test_end_answers_what_was_accepted(images):
    """After SIGTERM nothing new is accepted, and what was accepted before is answered."""
    accepted = images[:70]

    async def main():
        async with serve(GATED) as service:
            asking = await service.fill([image for image, _ in accepted])
            service.process.terminate()
            await service.until_it_ends()
            assert not any(task.done() for task in asking)
            service.open()
            assert [(200, digit) for _, digit in accepted] == await answers(asking)
            assert -signal.SIGTERM == service.process.wait(PATIENCE)

    asyncio.run(main())


def test_client_that_leaves(images):
    """The image of a client that leaves while it waits is taken out; the others get their answers."""

    async def main():
        async with serve(GATED) as service:
            first, leaving, last = await service.fill([image for image, _ in images[:3]])
            leaving.cancel()
            await service.until("batchify_cancelled_items_total", 1)
            assert 1 == await service.number("batchify_pending_items")
            service.open()
            assert [(200, images[0][1]), (200, images[2][1])] == await answers([first, last])

    asyncio.run(main())


def test_time_limit(images):
    """A request that takes too long gets 504, whether its image is computed or waits; one that waits is taken out."""

    async def main():
        async with serve(GATED, TIME_LIMIT="0.05") as service:
            for image, _ in images[:2]:
                assert 504 == (await service.ask(image)).status
            await service.until("batchify_cancelled_items_total", 1)
            assert 0 == await service.number("batchify_pending_items")

    asyncio.run(main())


def test_closed_batcher():
    """A request that comes when the batcher is closed gets 503 and is told when to come again."""

    async def main():
        async with serve(CLOSED) as service:
            response = await service.ask([0] * 64)
            assert (503, "1") == (response.status, response.retry_after)

    asyncio.run(main())


@pytest.mark.parametrize("pixels", [["0"] * 63, ["0"] * 65, *([wrong] + ["0"] * 63 for wrong in ("NaN", "17", "-1"))])
def test_bad_image(service_for_bad_images, pixels):
    """An image that the model would refuse gets 422 and never reaches it."""
    port = service_for_bad_images
    assert 422 == asyncio.run(fetch(port, "/predict", f"[{','.join(pixels)}]")).status
    assert 'batcher="predict"' not in asyncio.run(fetch(port, "/metrics")).text


@pytest.fixture(scope="module")
def service_for_bad_images():
    """Start one service for all of them, and return its port."""
    with alive(SERVICE) as (_, port):
        yield port
