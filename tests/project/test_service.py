"""The service answers each request with what belongs to it, and says so where it cannot; also when told to end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from threading import Timer
from typing import NamedTuple

import pytest

from tests.kit import processes
from tests.kit.examples import EXAMPLES

# Whatever waits for the service gives up after this many seconds, ...
PATIENCE = 20
# ... and no service lives longer than this many, which is also its time limit where a test sets none.
LIFE = 60

SERVICE = "import service; service.main()"
# Most of a start is spent on the model. In its place comes one that adds up the pixels, and is as sensitive.
QUICK = """
import sys, types
digits = sys.modules["digits"] = types.ModuleType("digits")
digits.learn = lambda: None
digits.model = types.SimpleNamespace(predict=lambda images: images.sum(axis=1).astype(int))
import service
"""
# Neither is anything computed nor does a transaction end before its standard input is closed.
GATED = f"""
{QUICK}
import asyncio, os
def predict(images, direct=digits.model.predict):
    os.read(0, 1)
    return direct(images)
async def commit(direct=service.database.commit):
    await asyncio.to_thread(os.read, 0, 1)
    await direct()
digits.model.predict = predict
service.database.commit = commit
service.main()
"""
CLOSED = f"{QUICK}\nservice.predict.close(); service.keep.close(); service.main()"
# The first transaction cannot end.
FAILING = f"""
{QUICK}
import asyncio
async def fail():
    raise OSError
async def main():
    async with service.lifespan(service.app):
        commit, service.database.commit = service.database.commit, fail
        print(await asyncio.gather(service.keep([1], 1), service.keep([2], 2), return_exceptions=True))
        service.database.commit = commit
        await service.keep([3], 3)
asyncio.run(main())
"""
# NumPy starts threads, and with those about, fork() warns in other tests: it is for other processes.
DIRECT = """
import digits, json
images, _ = digits.learn()
print(json.dumps([images.tolist(), digits.model.predict(images).tolist()]))
"""


def start(code, *arguments, **variables):
    """Start a process that runs ``code`` beside the examples."""
    return processes.start("-c", code, *arguments, path=[EXAMPLES], traced=False, **variables)


def finish(process):
    """Return what a process prints, which ends well and without complaints."""
    output, errors = process.communicate(timeout=LIFE)
    assert (0, "") == (process.returncode, errors)
    return output


def picture(number):
    """Return an image whose pixels add up to ``number``."""
    return [16] * (number // 16) + [number % 16] + [0] * (63 - number // 16)


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
        self._connections = asyncio.Semaphore(150)

    def open(self):
        """Let the model compute."""
        self.process.stdin.close()

    def ask(self, path, body):
        """Make a request, in a task of its own."""

        async def ask():
            async with self._connections:
                return await fetch(self.port, path, json.dumps(body))

        return asyncio.create_task(ask())

    def predict(self, image):
        """Ask for the digit in an image."""
        return self.ask("/predict", image)

    def correct(self, number):
        """Tell what the picture of a number shows, which is its last digit."""
        return self.ask("/feedback", {"image": picture(number), "digit": number % 10})

    async def number(self, metric, batcher="predict"):
        """Return a metric of a batched function, the sum over its other labels."""
        _, _, text = await fetch(self.port, "/metrics")
        found = re.findall(rf'^{metric}{{batcher="{batcher}".*}} (.+)$', text, re.MULTILINE)
        return sum(float(value) for value in found)

    async def until(self, metric, number, batcher="predict"):
        """Wait until a metric has a value."""

        async def look():
            while number != await self.number(metric, batcher):
                pass

        await asyncio.wait_for(look(), PATIENCE)

    async def until_it_ends(self):
        """Wait until it takes no connection any more."""

        async def knock():
            while True:
                await fetch(self.port, "/healthz")

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(knock(), PATIENCE)

    async def fill(self, numbers):
        """Ask for what some pictures show; the model is busy with the first then, and the others wait."""
        return await self._fill(self.predict, map(picture, numbers), "predict")

    async def fill_up(self, numbers):
        """Tell what some pictures show; the first is being written then, and the others wait."""
        return await self._fill(self.correct, numbers, "keep")

    async def _fill(self, ask, what, batcher):
        first, *others = what
        asking = [ask(first)]
        await self.until("batchify_running_items", 1, batcher)
        asking += map(ask, others)
        await self.until("batchify_pending_items", len(others), batcher)
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


async def statuses(asking):
    """Return the status of each response, and when it tells to come again."""
    return [(response.status, response.retry_after) for response in await asyncio.gather(*asking)]


def kept(path):
    """Return the rows of a database that the service has left, the numbers of the pictures with what they show."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT image, digit FROM feedback").fetchall()
    return sorted((sum(json.loads(image)), digit) for image, digit in rows)


def test_every_request_gets_its_own_answer():
    """Hundreds of requests at once get what the model says to each image alone, from fewer batches than requests."""

    async def main():
        # Both train a model, which takes the longest.
        with start(DIRECT) as process:
            async with serve() as service:
                images, digits = json.loads(finish(process))
                assert [(200, digit) for digit in digits] == await answers(map(service.predict, images))
                assert len(images) == await service.number("batchify_answered_items_total")
                assert 0 < await service.number("batchify_batches_total") < len(images)
        assert 300 < len(images)

    asyncio.run(main())


def test_what_is_told_is_kept(tmp_path):
    """Hundreds of requests at once are written in fewer transactions than there are, each once, with its own digit."""
    numbers = range(400)

    async def main():
        async with serve(f"{QUICK}\nservice.main()", FEEDBACK=str(tmp_path / "kept")) as service:
            assert {(204, None)} == set(await statuses(map(service.correct, numbers)))
            assert 0 < await service.number("batchify_batches_total", "keep") < len(numbers)
            # It is there for others now, not only when the service has ended.
            assert [(number, number % 10) for number in numbers] == kept(tmp_path / "kept")

    asyncio.run(main())


def test_what_fails_is_not_kept(tmp_path):
    """If a transaction cannot end nothing of it is kept, not by the next one either."""
    with start(FAILING, FEEDBACK=str(tmp_path / "kept")) as process:
        assert "[OSError(), OSError()]\n" == finish(process)
    assert [(3, 3)] == kept(tmp_path / "kept")


def test_overload_is_refused():
    """Without room a request gets 503 and is told when to come again; those that have room get their answers."""
    room, refused = 8, range(100, 140)

    async def main():
        async with serve(GATED, MAX_PENDING=str(room)) as service:
            asking, telling = await service.fill(range(1 + room)), await service.fill_up(range(1 + room))
            assert {(503, "1")} == set(await statuses(service.predict(picture(number)) for number in refused))
            assert {(503, "1")} == set(await statuses(map(service.correct, refused)))
            assert len(refused) == await service.number("batchify_rejected_items_total")
            assert len(refused) == await service.number("batchify_rejected_items_total", "keep")
            service.open()
            assert [(200, number) for number in range(1 + room)] == await answers(asking)
            assert {(204, None)} == set(await statuses(telling))

    asyncio.run(main())


def test_end_answers_what_was_accepted(tmp_path):
    """After SIGTERM nothing new is accepted; what was accepted before is computed and written, and then answered."""
    numbers = range(70)

    async def main():
        async with serve(GATED, FEEDBACK=str(tmp_path / "kept")) as service:
            asking, telling = await service.fill(numbers), await service.fill_up(numbers)
            service.process.terminate()
            await service.until_it_ends()
            assert not any(task.done() for task in asking + telling)
            service.open()
            assert [(200, number) for number in numbers] == await answers(asking)
            assert {(204, None)} == set(await statuses(telling))
            assert -signal.SIGTERM == service.process.wait(PATIENCE)

    asyncio.run(main())
    assert [(number, number % 10) for number in numbers] == kept(tmp_path / "kept")


def test_client_that_leaves():
    """The image of a client that leaves while it waits is taken out; the others get their answers."""

    async def main():
        async with serve(GATED) as service:
            first, leaving, last = await service.fill([1, 2, 3])
            leaving.cancel()
            await service.until("batchify_cancelled_items_total", 1)
            assert 1 == await service.number("batchify_pending_items")
            service.open()
            assert [(200, 1), (200, 3)] == await answers([first, last])

    asyncio.run(main())


def test_time_limit():
    """A request whose turn does not come in time gets 504, and is never computed; what has begun is answered."""

    async def main():
        async with serve(GATED, TIME_LIMIT="0.5") as service:
            [first] = await service.fill([1])
            assert 504 == (await service.predict(picture(2))).status
            assert 1 == await service.number("batchify_expired_items_total")
            assert 0 == await service.number("batchify_pending_items")
            service.open()
            assert [(200, 1)] == await answers([first])

    asyncio.run(main())


@pytest.fixture(scope="module")
def closed():
    """Start a service that takes nothing any more, and return its port."""
    with alive(CLOSED) as (_, port):
        yield port


@pytest.mark.parametrize(("path", "body"), [("/predict", picture(0)), ("/feedback", {"image": picture(0), "digit": 0})])
def test_closed_batcher(closed, path, body):
    """A request that comes when the batcher is closed gets 503 and is told when to come again."""
    response = asyncio.run(fetch(closed, path, json.dumps(body)))
    assert (503, "1") == (response.status, response.retry_after)


@pytest.mark.parametrize("pixels", [["0"] * 63, ["0"] * 65, *([wrong] + ["0"] * 63 for wrong in ("NaN", "17", "-1"))])
def test_bad_image(closed, pixels):
    """An image that the model would refuse gets 422 before anybody looks whether there is room for it."""
    image = f"[{','.join(pixels)}]"
    assert 422 == asyncio.run(fetch(closed, "/predict", image)).status
    assert 422 == asyncio.run(fetch(closed, "/feedback", f'{{"image": {image}, "digit": 1}}')).status


@pytest.mark.parametrize("digit", [-1, 10, "five"])
def test_bad_digit(closed, digit):
    """What is no digit gets 422."""
    body = json.dumps({"image": picture(0), "digit": digit})
    assert 422 == asyncio.run(fetch(closed, "/feedback", body)).status
