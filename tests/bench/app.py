"""Serve ``examples/service.py`` in one of several ways, for the service workload.

``python -m tests.bench.app WAY DATABASE`` prints the port on which it listens, or the reason why it cannot serve.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from socket import create_server
from types import SimpleNamespace

from tests.bench import subjects
from tests.bench.contest import AbsentError
from tests.bench.figures import OURS

EXAMPLES = Path(__file__).parents[2] / "examples"
ALONE = "batches of one"
DIRECT = "a thread each"


def one_item(service):
    """Limit each batch to one item, and change nothing else."""
    service.predict.configure(max_size=1)
    service.save.configure(max_size=1)


def direct(service):
    """Call the model in a thread for each request, as code without batches does."""
    fn = service.predict.__wrapped__
    # scikit-learn warns about its settings in threads of other code, and resets warning filters there.
    warnings.showwarning = lambda *_, **__: None

    async def call(image):
        return (await asyncio.to_thread(fn, [image]))[0]

    service.predict_in_time = SimpleNamespace(acall=call)


WAYS = {ALONE: one_item, DIRECT: direct, OURS: lambda service: None}


def example(name):
    """Import an example.

    Raises:
        AbsentError: a package that it needs is not installed.
    """
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return subjects.module(name)


def main(way, database):
    """Serve until killed."""
    os.environ["FEEDBACK"] = database
    try:
        service = example("service")
    except AbsentError as error:
        sys.exit(print(error))
    WAYS[way](service)
    listener = create_server(("127.0.0.1", 0), backlog=1024)
    server = service.uvicorn.Server(service.uvicorn.Config(service.app, log_level="error"))
    start = server.startup

    async def start_and_print_port(sockets):
        await start(sockets)
        print(listener.getsockname()[1], flush=True)

    # The server prints its port after the model is trained.
    server.startup = start_and_print_port
    server.run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
