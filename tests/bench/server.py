"""A FastAPI app on uvicorn, for the web workload.

``python -m tests.bench.server SUBJECT LOOP`` prints the port on which it listens, or the reason why it cannot serve.
"""

from __future__ import annotations

import asyncio
import sys
from socket import create_server

from tests.bench import clock, subjects
from tests.bench.contest import AbsentError
from tests.bench.subjects import ADAPTIVE, ON_LOOP, Subject

UNBATCHED = "no batches"
# Seconds for a call, and for each item in it, like those of a small model on one device.
A, B = 0.002, 0.00005
OPTIONS = {"max_size": 32, "timeout": 0.002}


def unbatched(fn, **_):
    """Call the function for each item."""

    async def call(item):
        return (await fn([item]))[0]

    return Subject(call)


MAKERS = {UNBATCHED: unbatched, **ON_LOOP, ADAPTIVE: subjects.ours_adaptive}


def app_of(maker):
    """Return an app that answers ``/5`` with ``5``."""
    app = subjects.module("fastapi").FastAPI()
    device = asyncio.Lock()
    made = []

    async def serve(items):
        async with device:
            await asyncio.sleep(A + B * len(items))
        return items

    @app.get("/{item}")
    async def answer(item: int) -> int:
        # Created on the loop on which it runs.
        if not made:
            made.append(maker(serve, **OPTIONS).call)
        return await made[0](item)

    return app


def main(name, kind):
    """Serve until killed."""
    try:
        uvicorn = subjects.module("uvicorn")
        if kind != "asyncio":
            subjects.module(kind)
        app = app_of(MAKERS[name])
        config = uvicorn.Config(app, loop=kind, log_level="error")
        _try(MAKERS[name])
    except AbsentError as error:
        sys.exit(print(error))
    listener = create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def _try(maker):
    """Check that the packages of a subject are installed."""

    async def make():
        maker(clock.echo, **OPTIONS)

    asyncio.run(make())


if __name__ == "__main__":
    main(*sys.argv[1:])
