"""The service answers each request with its own result or with an error, also during shutdown."""

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

# Seconds after which a test stops waiting for the service.
TIMEOUT = 20
# Seconds after which a service is killed; also its time limit where a test sets none.
LIFETIME = 60

SERVICE = "import service; service.main()"
# A service with a model that needs no training: it adds up the pixels, and rejects the same images.
QUICK = """
import sys, types
digits = sys.modules["digits"] = types.ModuleType("digits")
digits.learn = lambda: None
digits.model = types.SimpleNamespace(predict=lambda images: images.sum(axis=1).astype(int))
import service
"""
# A service whose model and transactions wait until standard input is closed.
GATED = f"""
{QUICK}
import asyncio, os
from aiosqlite import Connection
def predict(images, direct=digits.model.predict):
    os.read(0, 1)
    return direct(images)
async def commit(database, direct=Connection.commit):
    await asyncio.to_thread(os.read, 0, 1)
    await direct(database)
digits.model.predict = predict
Connection.commit = commit
service.main()
"""
CLOSED = f"{QUICK}\nservice.predict.close(); service.save.close(); service.main()"
# A service whose first transaction fails.
FAILING = f"""
{QUICK}
import asyncio
from aiosqlite import Connection
async def fail(database):
    raise OSError
async def main():
    async with service.lifespan(service.app):
        commit, Connection.commit = Connection.commit, fail
        print(await asyncio.gather(service.save([1], 1), service.save([2], 2), return_exceptions=True))
        Connection.commit = commit
        await service.save([3], 3)
asyncio.run(main())
"""
# A service that starts twice in one process, as in a test suite with a client for each test.
RESTARTED = f"""
{QUICK}
import asyncio
async def main(number):
    async with service.lifespan(service.app):
        print(await service.predict_in_time.acall([number]), await service.save([number], number))
for number in (1, 2):
    asyncio.run(main(number))
"""
# NumPy starts threads, with which fork() warns in other tests, so it runs in another process.
DIRECT = """
import digits, json
images, _ = digits.learn()
print(json.dumps([images.tolist(), digits.model.predict(images).tolist()]))
"""


def start(code, *arguments, **variables):
    """Start a process that runs ``code`` beside the examples."""
    return processes.start("-c", code, *arguments, path=[EXAMPLES], traced=False, **variables)


def finish(process):
    """Return the output of a process that ends without an error."""
    output, errors = process.communicate(timeout=LIFETIME)
    assert (0, "") == (process.returncode, errors)
    return output


def picture(number):
    """Return an image whose pixels add up to ``number``."""
    return [16] * (number // 16) + [number % 16] + [0] * (63 - number // 16)


class Response(NamedTuple):
    """A response of the service, with the one header that matters here."""

    status: int
    retry_after: str | None
    text: str


async def fetch(port, path, body=None):
    """Return the response to one request on a new connection.

    Raises:
        ConnectionError: there is no response.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        method = "POST" if body else "GET"
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{content}\r\n{body or ''}".encode()
        )
        head, _, text = (await asyncio.wait_for(reader.read(), TIMEOUT)).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    if not head:
        raise ConnectionResetError
    retry_after = re.search(r"(?im)^retry-after: (.*?)\r?$", head)
    return Response(int(head.split()[1]), retry_after and retry_after[1], text)


class Service:
    """A service in another process, and its clients."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        # Some systems limit a process to 256 open files.
        self._connections = asyncio.Semaphore(150)

    def open_gate(self):
        """Allow a gated model to compute and transactions to end."""
        self.process.stdin.close()

    def post(self, path, body):
        """Make a request in a new task."""

        async def post():
            async with self._connections:
                return await fetch(self.port, path, json.dumps(body))

        return asyncio.create_task(post())

    def predict(self, image):
        """Request the digit in an image."""
        return self.post("/predict", image)

    def feedback(self, number):
        """Send the image of a number with its last digit."""
        return self.post("/feedback", {"image": picture(number), "digit": number % 10})

    async def value(self, metric, batcher="predict"):
        """Return a metric of a batched function, summed over its other labels."""
        _, _, text = await fetch(self.port, "/metrics")
        found = re.findall(rf'^{metric}{{batcher="{batcher}".*}} (.+)$', text, re.MULTILINE)
        return sum(float(value) for value in found)

    async def until(self, metric, value, batcher="predict"):
        """Wait until a metric has a value."""

        async def poll():
            while value != await self.value(metric, batcher):
                pass

        await asyncio.wait_for(poll(), TIMEOUT)

    async def until_closed(self):
        """Wait until the service accepts no connection any more."""

        async def poll():
            while True:
                await fetch(self.port, "/healthz")

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(poll(), TIMEOUT)

    async def queue_predictions(self, numbers):
        """Request predictions, and return when the model computes the first and the others wait."""
        return await self._queue(self.predict, map(picture, numbers), "predict")

    async def queue_feedback(self, numbers):
        """Send feedback, and return when the first is being written and the others wait."""
        return await self._queue(self.feedback, numbers, "save")

    async def _queue(self, send, bodies, batcher):
        first, *others = bodies
        requests = [send(first)]
        await self.until("batchify_running_items", 1, batcher)
        requests += map(send, others)
        await self.until("batchify_pending_items", len(others), batcher)
        return requests


@contextmanager
def running(code, **variables):
    """Start a service and provide its process and port; at the end it must shut down without an error."""
    with start(code, "--port", "0", **{"TIME_LIMIT": str(LIFETIME), **variables}) as process:
        timer = Timer(LIFETIME, process.kill)
        timer.start()
        try:
            lines = iter(process.stderr.readline, "")
            found = (re.search(r"running on http://127.0.0.1:(\d+)", line) for line in lines)
            yield process, int(next(filter(None, found))[1])
            process.stdin.close()
            process.terminate()
            errors = process.stderr.read()
            process.wait(TIMEOUT)
        finally:
            process.kill()
            timer.cancel()
            timer.join()
    assert "Application shutdown complete." in errors
    assert "ERROR" not in errors
    # After the shutdown, uvicorn ends the process with the signal that it received.
    assert -signal.SIGTERM == process.returncode


@asynccontextmanager
async def serve(code=SERVICE, **variables):
    """Run a service and provide it when it is ready."""
    with running(code, **variables) as (process, port):
        assert 200 == (await fetch(port, "/healthz")).status
        yield Service(process, port)


async def answers(requests):
    """Return the status and the content of each response."""
    return [(response.status, json.loads(response.text)) for response in await asyncio.gather(*requests)]


async def statuses(requests):
    """Return the status and ``Retry-After`` of each response."""
    return [(response.status, response.retry_after) for response in await asyncio.gather(*requests)]


def saved(path):
    """Return the rows in the database of the service: the numbers of the images, with their digits."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT image, digit FROM feedback").fetchall()
    return sorted((sum(json.loads(image)), digit) for image, digit in rows)


def test_every_request_gets_its_own_answer():
    """Hundreds of requests at once get the predictions for each image alone, from fewer batches than requests."""

    async def main():
        # Both processes train a model at the same time, because that takes the longest.
        with start(DIRECT) as process:
            async with serve() as service:
                images, digits = json.loads(finish(process))
                assert [(200, digit) for digit in digits] == await answers(map(service.predict, images))
                assert len(images) == await service.value("batchify_answered_items_total")
                assert 0 < await service.value("batchify_batches_total") < len(images)
        assert 300 < len(images)

    asyncio.run(main())


def test_without_batching():
    """With its switch, the service gives the same answers, in batches of one."""
    numbers = range(40)

    async def main():
        async with serve(f"{QUICK}\nsys.argv.append('--no-batching')\nservice.main()") as service:
            assert [(200, number) for number in numbers] == await answers(map(service.predict, map(picture, numbers)))
            assert {(204, None)} == set(await statuses(map(service.feedback, numbers)))
            for batcher in ("predict", "save"):
                assert len(numbers) == await service.value("batchify_batches_total", batcher)

    asyncio.run(main())


def test_feedback_is_saved(tmp_path):
    """Hundreds of requests at once are written once each, with their own digits, in fewer transactions."""
    numbers = range(400)

    async def main():
        async with serve(f"{QUICK}\nservice.main()", FEEDBACK=str(tmp_path / "saved")) as service:
            assert {(204, None)} == set(await statuses(map(service.feedback, numbers)))
            assert 0 < await service.value("batchify_batches_total", "save") < len(numbers)
            # Other connections see the rows now, and not only after the shutdown.
            assert [(number, number % 10) for number in numbers] == saved(tmp_path / "saved")

    asyncio.run(main())


def test_what_fails_is_not_saved(tmp_path):
    """A transaction that fails saves nothing, and neither does the next one of its rows."""
    with start(FAILING, FEEDBACK=str(tmp_path / "saved")) as process:
        assert "[OSError(), OSError()]\n" == finish(process)
    assert [(3, 3)] == saved(tmp_path / "saved")


def test_the_service_starts_twice_in_one_process(tmp_path):
    """After its shutdown, the service starts again in the same process, and writes to the same database."""
    with start(RESTARTED, FEEDBACK=str(tmp_path / "saved")) as process:
        assert "1 None\n2 None\n" == finish(process)
    assert [(1, 1), (2, 2)] == saved(tmp_path / "saved")


def test_overload_is_refused():
    """Without room, a request gets status 503 and ``Retry-After``; waiting requests get their answers."""
    room, refused = 8, range(100, 140)

    async def main():
        async with serve(GATED, MAX_PENDING=str(room)) as service:
            predictions = await service.queue_predictions(range(1 + room))
            feedback = await service.queue_feedback(range(1 + room))
            assert {(503, "1")} == set(await statuses(service.predict(picture(number)) for number in refused))
            assert {(503, "1")} == set(await statuses(map(service.feedback, refused)))
            assert len(refused) == await service.value("batchify_rejected_items_total")
            assert len(refused) == await service.value("batchify_rejected_items_total", "save")
            service.open_gate()
            assert [(200, number) for number in range(1 + room)] == await answers(predictions)
            assert {(204, None)} == set(await statuses(feedback))

    asyncio.run(main())


def test_shutdown_answers_accepted_requests(tmp_path):
    """After SIGTERM, the service accepts no request, and answers those that it has accepted before."""
    numbers = range(70)

    async def main():
        async with serve(GATED, FEEDBACK=str(tmp_path / "saved")) as service:
            predictions = await service.queue_predictions(numbers)
            feedback = await service.queue_feedback(numbers)
            service.process.terminate()
            await service.until_closed()
            assert not any(task.done() for task in predictions + feedback)
            service.open_gate()
            assert [(200, number) for number in numbers] == await answers(predictions)
            assert {(204, None)} == set(await statuses(feedback))
            assert -signal.SIGTERM == service.process.wait(TIMEOUT)

    asyncio.run(main())
    assert [(number, number % 10) for number in numbers] == saved(tmp_path / "saved")


def test_a_client_that_disconnects():
    """The waiting image of a client that disconnects is removed; the other clients get their answers."""

    async def main():
        async with serve(GATED) as service:
            first, disconnecting, last = await service.queue_predictions([1, 2, 3])
            disconnecting.cancel()
            await service.until("batchify_cancelled_items_total", 1)
            assert 1 == await service.value("batchify_pending_items")
            service.open_gate()
            assert [(200, 1), (200, 3)] == await answers([first, last])

    asyncio.run(main())


def test_time_limit():
    """A request that waits for too long gets status 504, and is never computed; a running request is answered."""

    async def main():
        async with serve(GATED, TIME_LIMIT="0.5") as service:
            [first] = await service.queue_predictions([1])
            assert 504 == (await service.predict(picture(2))).status
            assert 1 == await service.value("batchify_expired_items_total")
            assert 0 == await service.value("batchify_pending_items")
            service.open_gate()
            assert [(200, 1)] == await answers([first])

    asyncio.run(main())


@pytest.fixture(scope="module")
def closed():
    """Start a service whose batchers are closed, and return its port."""
    with running(CLOSED) as (_, port):
        yield port


@pytest.mark.parametrize(("path", "body"), [("/predict", picture(0)), ("/feedback", {"image": picture(0), "digit": 0})])
def test_closed_batcher(closed, path, body):
    """With a closed batcher, a request gets status 503 and ``Retry-After``."""
    response = asyncio.run(fetch(closed, path, json.dumps(body)))
    assert (503, "1") == (response.status, response.retry_after)


@pytest.mark.parametrize("pixels", [["0"] * 63, ["0"] * 65, *([wrong] + ["0"] * 63 for wrong in ("NaN", "17", "-1"))])
def test_bad_image(closed, pixels):
    """An image that the model would reject gets status 422 and is not queued."""
    image = f"[{','.join(pixels)}]"
    assert 422 == asyncio.run(fetch(closed, "/predict", image)).status
    assert 422 == asyncio.run(fetch(closed, "/feedback", f'{{"image": {image}, "digit": 1}}')).status


@pytest.mark.parametrize("digit", [-1, 10, "five"])
def test_bad_digit(closed, digit):
    """An invalid digit gets status 422."""
    body = json.dumps({"image": picture(0), "digit": digit})
    assert 422 == asyncio.run(fetch(closed, "/feedback", body)).status
