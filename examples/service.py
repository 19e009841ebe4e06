"""Serve a model over HTTP, one image a request, in batches.

The question: what stands between a batched function and a service that people can rely on?

The model is that of ``digits.py``. ``POST /predict`` takes one image, 64 numbers from 0 to 16, and answers with the
digit in it; requests that come while the model computes travel together in its next call. The rest is what can happen
to a request:

* When there is no more room it is refused at once, with 503 and the advice to come again.
* When its turn does not come in time it gets 504, and when its client leaves nobody needs an answer. Either way its
  image is taken out, and never computed if that has not begun.
* When the service is told to end it no longer listens, but answers what it has accepted.

``POST /feedback`` takes an image and the digit that it really shows, and answers when both are in a SQLite database.
What makes that slow is the end of a transaction, when all has to be on the disk: requests that come while one ends
share the next. What was written is not taken back, so that here nobody looks whether the client is still there.

``GET /healthz`` tells that the service is ready, and ``GET /metrics`` is for Prometheus.

Run it with ``python examples/service.py --port 8000``; it needs the packages ``aiosqlite``, ``fastapi``,
``prometheus-client``, ``scikit-learn`` and ``uvicorn``. The variables ``MAX_PENDING`` and ``TIME_LIMIT`` are the most
requests of a kind that wait, and the most seconds that one waits for a prediction; ``FEEDBACK`` is the file of the
database, which else is in memory.
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

# The model refuses a whole batch for one bad image, so that a bad image must not get that far.
Pixel = Annotated[float, Field(ge=0, le=16, allow_inf_nan=False)]
Image = Annotated[list[Pixel], Body(min_length=64, max_length=64)]
Digit = Annotated[int, Body(ge=0, le=9)]

database = aiosqlite.connect(os.environ.get("FEEDBACK", ":memory:"))


@microbatch(max_size=64, max_pending=MAX_PENDING, on_full="raise")
def predict(images: list[list[float]]) -> list[int]:
    """Return the digit in each image."""
    digits: list[int] = model.predict(np.array(images)).tolist()
    return digits


timely = predict.options(deadline=TIME_LIMIT)


@microbatch(max_size=256, max_pending=MAX_PENDING, on_full="raise")
async def keep(images: list[list[float]], digits: list[int]) -> list[None]:
    """Write images and the digits in them to the database, in one transaction."""
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
    """Make all ready before the first request, and close the batchers after the last, then what they use."""
    learn()
    async with database:
        await database.execute("CREATE TABLE IF NOT EXISTS feedback (image TEXT, digit INTEGER)")
        yield
        await batchify.aclose_all()


app = FastAPI(title="Digits", lifespan=lifespan)
REGISTRY.register(BatchCollector())


async def leave(request: Request) -> None:
    """Return when the client of a request, whose body has been read, has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.post("/predict")
async def answer(image: Image, request: Request) -> int:
    """Return the digit in an image, as long as there is somebody who waits for it."""
    digit = asyncio.ensure_future(timely.acall(image))
    left = asyncio.ensure_future(leave(request))
    try:
        await asyncio.wait([digit, left], return_when=asyncio.FIRST_COMPLETED)
        if digit.done():
            return digit.result()
        # Nobody reads it; the number is the one that nginx logs.
        raise HTTPException(499, "the client has left")
    finally:
        digit.cancel()
        left.cancel()


@app.post("/feedback", status_code=204)
async def correct(image: Image, digit: Digit) -> None:
    """Keep what an image really shows. It is on the disk when this returns."""
    await keep(image, digit)


@app.exception_handler(BatcherClosedError)
@app.exception_handler(QueueFullError)
async def refuse(_request: Request, error: Exception) -> JSONResponse:
    """Tell a client to come again when there is room, or another process in the place of this one."""
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


@app.exception_handler(DeadlineError)
async def give_up(_request: Request, error: Exception) -> JSONResponse:
    """Tell a client that its turn did not come in time."""
    return JSONResponse({"detail": str(error)}, 504)


@app.exception_handler(RequestValidationError)
async def explain(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Tell what is wrong with an image, without sending it back: JSON has no word for NaN."""
    return JSONResponse({"detail": [{"loc": wrong["loc"], "msg": wrong["msg"]} for wrong in error.errors()]}, 422)


@app.get("/healthz")
async def health() -> str:
    """Answer, which is all that is asked for."""
    return "ok"


@app.get("/metrics")
async def metrics() -> Response:
    """Return what Prometheus scrapes."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description="Serve a model that reads digits.")
    parser.add_argument("--port", type=int, default=8000, help="where to listen; 0 is any free port (default: 8000)")
    uvicorn.run(app, port=parser.parse_args().port, access_log=False)


if __name__ == "__main__":
    main()
