"""Serve a model over HTTP in batches, with one image in each request.

This example shows a reliable web service around a batched function.

``POST /predict`` takes one image, 64 numbers from 0 to 16, and returns the digit in it, with the model of
``digits.py``. Requests that arrive while the model computes share its next call.

* Overload: when too many requests wait, the service refuses a new one at once with status 503 and ``Retry-After``.
* Time limit: a request that waits for too long gets status 504, and the model never computes its image.
* Disconnect: when a client disconnects, its waiting image is removed as well.
* Shutdown: on SIGTERM, the service stops listening and answers every request that it has accepted.

``POST /feedback`` takes an image and its real digit, and returns when both are in a SQLite database. The slow part is
the end of a transaction, when the data must reach the disk. Requests that arrive meanwhile share the next transaction.
This endpoint ignores disconnects, because a write is not undone.

``GET /healthz`` reports that the service is ready, and ``GET /metrics`` is for Prometheus.

Run it with ``python examples/service.py --port 8000``; it needs the packages ``aiosqlite``, ``fastapi``,
``prometheus-client``, ``scikit-learn`` and ``uvicorn``. With ``--no-batching`` it answers the same requests in batches
of one. Batching does not pay for a single client that waits for each answer. These environment variables configure it:

* ``MAX_PENDING``: the maximum number of waiting requests for each of the two endpoints.
* ``TIME_LIMIT``: the maximum number of seconds that a request waits for a prediction.
* ``FEEDBACK``: the file of the database; by default, the database is in memory.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import aiosqlite
import numpy as np
import uvicorn
from digits import learn, model
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import Field

import batchify
from batchify import BatcherClosedError, DeadlineError, QueueFullError, microbatch
from batchify.prometheus import BatchCollector

MAX_PENDING = int(os.environ.get("MAX_PENDING", "1024"))
TIME_LIMIT = float(os.environ.get("TIME_LIMIT", "10"))

# The model rejects a whole batch for one bad image, so images are validated before they are queued.
Pixel = Annotated[float, Field(ge=0, le=16, allow_inf_nan=False)]
Image = Annotated[list[Pixel], Body(min_length=64, max_length=64)]
Digit = Annotated[int, Body(ge=0, le=9)]


@microbatch(max_size=64, max_pending=MAX_PENDING, on_full="raise")
def predict(images: list[list[float]]) -> list[int]:
    """Return the digit in each image."""
    digits: list[int] = model.predict(np.array(images)).tolist()
    return digits


predict_in_time = predict.options(deadline=TIME_LIMIT)


@asynccontextmanager
async def connection() -> AsyncIterator[aiosqlite.Connection]:
    """Connect to the database for feedback."""
    async with aiosqlite.connect(os.environ.get("FEEDBACK", ":memory:")) as database:
        await database.execute("CREATE TABLE IF NOT EXISTS feedback (image TEXT, digit INTEGER)")
        yield database


@microbatch(max_size=256, max_pending=MAX_PENDING, on_full="raise", lifespan=connection)
async def save(images: list[list[float]], digits: list[int]) -> list[None]:
    """Write images and the digits in them to the database, in one transaction."""
    database = batchify.current_batch().state
    rows = zip(map(json.dumps, images), digits, strict=True)
    try:
        await database.executemany("INSERT INTO feedback VALUES (?, ?)", rows)
        await database.commit()
    except BaseException:
        await database.rollback()
        raise
    return [None] * len(images)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Prepare the model; after the last request, answer all calls and disconnect from the database."""
    learn()
    yield
    await batchify.adrain_all()


app = FastAPI(title="Digits", lifespan=lifespan)
REGISTRY.register(BatchCollector())


async def disconnected(request: Request) -> None:
    """Return when the client disconnects; the body of the request must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.post("/predict")
async def predict_digit(image: Image, request: Request) -> int:
    """Return the digit in an image, unless the client disconnects."""
    digit = asyncio.ensure_future(predict_in_time.acall(image))
    disconnect = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait([digit, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if digit.done():
            return digit.result()
        # No client reads this response; 499 is the status that nginx logs.
        raise HTTPException(499, "the client has disconnected")
    finally:
        digit.cancel()
        disconnect.cancel()


@app.post("/feedback", status_code=204)
async def save_feedback(image: Image, digit: Digit) -> None:
    """Save the real digit of an image. The data is on the disk when this returns."""
    await save(image, digit)


@app.exception_handler(BatcherClosedError)
@app.exception_handler(QueueFullError)
async def unavailable(_request: Request, error: Exception) -> JSONResponse:
    """Ask the client to try again later."""
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


@app.exception_handler(DeadlineError)
async def timed_out(_request: Request, error: Exception) -> JSONResponse:
    """Tell the client that the request has exceeded its time limit."""
    return JSONResponse({"detail": str(error)}, 504)


@app.exception_handler(RequestValidationError)
async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Describe the error without the image, because JSON cannot express NaN."""
    return JSONResponse({"detail": [{"loc": wrong["loc"], "msg": wrong["msg"]} for wrong in error.errors()]}, 422)


@app.get("/healthz")
async def health() -> str:
    """Report that the service is ready."""
    return "ok"


@app.get("/metrics")
async def metrics() -> Response:
    """Return the metrics that Prometheus scrapes."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="Serve a model that reads digits.")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 is any free port (default: 8000)")
    parser.add_argument("--no-batching", action="store_true", help="run batches of one, for comparison")
    args = parser.parse_args()
    if args.no_batching:
        predict.configure(max_size=1)
        save.configure(max_size=1)
    uvicorn.run(app, port=args.port, access_log=False)


if __name__ == "__main__":
    main()
