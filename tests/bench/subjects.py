"""Who takes part: the floors, batchify and its peers, all made alike from a batch function.

Decides: how each peer is set up, which is as its own documentation does it, with the same size and the same window.
Must not know: what they are measured with.

Every maker is called where its subject is to work, on the running loop if it is for one, and makes a new one. A peer
that is not installed is an ``AbsentError`` that says so.
"""

from __future__ import annotations

import importlib
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import iscoroutinefunction
from types import SimpleNamespace
from typing import TYPE_CHECKING

from batchify import microbatch
from tests.bench import floors
from tests.bench.contest import AbsentError
from tests.bench.figures import FLOOR, OURS

if TYPE_CHECKING:
    from collections.abc import Callable

ADAPTIVE = "batchify, adaptive"
BATCHED = "batched"
ASYNC_BATCHER = "async-batcher"
AIODATALOADER = "aiodataloader"
RAY = "ray serve"
WINDOWED = (BATCHED, ASYNC_BATCHER, RAY)
PEERS = (*WINDOWED, AIODATALOADER)
# Which package each comes in.
PACKAGES = {BATCHED: "batched", ASYNC_BATCHER: "async-batcher", AIODATALOADER: "aiodataloader", RAY: "ray"}


def versions():
    """Return the versions of the peers that are installed."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def module(name):
    """Import a module that may be missing.

    Raises:
        AbsentError: it is.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"not installed: {error.name or name}"
        raise AbsentError(msg) from None


@dataclass(frozen=True)
class Subject:
    """One batcher, ready to be called.

    Attributes:
        call: takes an item; a coroutine function, or for threads a function that blocks.
        owner: has a ``submit``, which takes an item and returns a future, where there is such a thing.
        close: ends its threads, if it has any.
    """

    call: Callable
    owner: object = None
    close: Callable = lambda: None


# On a loop, of an async def function.


def loop_floor(fn, *, max_size, timeout):
    """Make the floor for a loop."""
    call, submit = floors.on_loop(fn, max_size=max_size, timeout=timeout)
    return Subject(call, SimpleNamespace(submit=submit))


def ours(fn, *, max_size, timeout):
    """Decorate an ``async def`` or a ``def`` function."""
    decorated = microbatch(fn, max_size=max_size, timeout=timeout)
    return Subject(decorated, decorated, decorated.close)


def ours_adaptive(fn, *, max_size, timeout):
    """Decorate a function and give it no window."""
    return ours(fn, max_size=max_size, timeout=None)


def batched_on_loop(fn, *, max_size, timeout):
    """Make one of ``batched``; its window has no off switch."""
    return Subject(module("batched.aio").dynamically(fn, batch_size=max_size, timeout_ms=1000 * (timeout or 0)))


def async_batcher(fn, *, max_size, timeout):
    """Make one of ``async-batcher``, which runs a ``def`` function in the threads of the loop."""
    base = module("async_batcher.batcher").AsyncBatcher

    class OnLoop(base):
        async def process_batch(self, batch):
            return await fn(batch)

    class InThread(base):
        def process_batch(self, batch):
            return fn(batch)

    kind = OnLoop if iscoroutinefunction(fn) else InThread
    return Subject(kind(max_batch_size=max_size, max_queue_time=timeout or 0).process)


def aiodataloader(fn, *, max_size, timeout):
    """Make one of ``aiodataloader``, without its cache; it has no window, and its calls return futures."""
    loader = module("aiodataloader").DataLoader(fn, max_batch_size=max_size, cache=False)
    return Subject(loader.load, SimpleNamespace(submit=loader.load))


def ray_serve(fn, *, max_size, timeout):
    """Make one of Ray Serve, with a stand-in for the deployment that it wants to run in."""
    serve = module("ray.serve")
    module("ray.serve.context")._INTERNAL_REPLICA_CONTEXT = SimpleNamespace(
        app_name="bench",
        deployment="bench",
        replica_tag="bench",
        _deployment_config=SimpleNamespace(max_ongoing_requests=10**9),
    )

    # It keeps what it needs with the function, so each time it gets another one.
    async def batch(items):
        return await fn(items)

    return Subject(serve.batch(max_batch_size=max_size, batch_wait_timeout_s=timeout or 0)(batch))


ON_LOOP = {
    FLOOR: loop_floor,
    OURS: ours,
    AIODATALOADER: aiodataloader,
    BATCHED: batched_on_loop,
    ASYNC_BATCHER: async_batcher,
    RAY: ray_serve,
}


def with_window():
    """Return the makers for a loop of all that have a window."""
    return {name: maker for name, maker in ON_LOOP.items() if name != AIODATALOADER}


def without_window():
    """Return the makers for a loop of all that do without a window."""
    return {name: ON_LOOP[name] for name in (FLOOR, OURS, AIODATALOADER)}


# Among threads, of a def function.


def thread_floor(fn, *, max_size, timeout):
    """Make the floor for threads."""
    return Subject(floors.among_threads(fn, max_size=max_size, timeout=timeout))


def batched_in_thread(fn, *, max_size, timeout):
    """Make one of ``batched`` that runs in a thread."""
    processor = module("batched").dynamically(fn, batch_size=max_size, timeout_ms=1000 * (timeout or 0))
    return Subject(processor, close=processor.shutdown)


AMONG_THREADS = {FLOOR: thread_floor, OURS: ours, ADAPTIVE: ours_adaptive, BATCHED: batched_in_thread}


# On a loop, of a def function.


def through_acall(maker):
    """Return a maker whose subjects, made by ``maker`` for threads, are called by tasks."""

    def make(fn, **options):
        subject = maker(fn, **options)
        return Subject(subject.call.acall, close=subject.close)

    return make


def with_pool(maker):
    """Return a maker whose subjects, made by ``maker`` for a loop, hand each batch to a pool of one thread."""

    def make(fn, **options):
        pool = ThreadPoolExecutor(1)
        hop = get_running_loop().run_in_executor

        async def run(items):
            return await hop(pool, fn, items)

        return Subject(maker(run, **options).call, close=pool.shutdown)

    return make


THROUGH_ACALL = {
    FLOOR: with_pool(loop_floor),
    OURS: through_acall(ours),
    ADAPTIVE: through_acall(ours_adaptive),
    BATCHED: through_acall(batched_in_thread),
    ASYNC_BATCHER: async_batcher,
    f"{AIODATALOADER} + pool": with_pool(aiodataloader),
}
