"""The entrants: the floors, batchify and its peers, each created from a batch function.

Decides: the setup of each peer, which follows its own documentation, with the same size and the same window.
Must not know: the measurements.

Every maker creates a new subject. A maker for event loops must be called on the running loop. A peer that is not
installed raises an ``AbsentError``.
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
ONE_THREAD = "one-thread pool"
FLOOR_WITH_POOL = "floor + pool"
WINDOWED = (BATCHED, ASYNC_BATCHER, RAY)
PEERS = (*WINDOWED, AIODATALOADER)
FIXED_WINDOWS = {f"batchify, {1000 * window:g} ms": window for window in (0, 0.002, 0.005, 0.01, 0.02)}
# Peer -> name of its package.
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
        AbsentError: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"not installed: {error.name or name}"
        raise AbsentError(msg) from None


@dataclass(frozen=True)
class Subject:
    """One batcher.

    Attributes:
        call: takes an item; a coroutine function, or for threads a function that blocks.
        owner: has a method ``submit``, which takes an item and returns a future, or is ``None``.
        close: ends the threads of the batcher, if it has any.
    """

    call: Callable
    owner: object = None
    close: Callable = lambda: None


# Async def functions on a loop.


def loop_floor(fn, *, max_size, timeout):
    """Make the floor for a loop."""
    call, submit = floors.on_loop(fn, max_size=max_size, timeout=timeout)
    return Subject(call, SimpleNamespace(submit=submit))


def ours(fn, *, max_size, timeout, **options):
    """Decorate an ``async def`` or a ``def`` function."""
    decorated = microbatch(fn, max_size=max_size, timeout=timeout, **options)
    return Subject(decorated, decorated, decorated.close)


def ours_adaptive(fn, *, max_size, timeout):
    """Decorate a function without a window."""
    return ours(fn, max_size=max_size, timeout=None)


def batched_on_loop(fn, *, max_size, timeout):
    """Make a batcher of ``batched``; its window cannot be disabled."""
    return Subject(module("batched.aio").dynamically(fn, batch_size=max_size, timeout_ms=1000 * (timeout or 0)))


def async_batcher(fn, *, max_size, timeout):
    """Make a batcher of ``async-batcher``, which runs a ``def`` function in the threads of the loop."""
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
    """Make a loader of ``aiodataloader`` without its cache; it has no window, and its calls return futures."""
    loader = module("aiodataloader").DataLoader(fn, max_batch_size=max_size, cache=False)
    return Subject(loader.load, SimpleNamespace(submit=loader.load))


def ray_serve(fn, *, max_size, timeout):
    """Make a batcher of Ray Serve, with a stub for the deployment that it requires."""
    serve = module("ray.serve")
    module("ray.serve.context")._INTERNAL_REPLICA_CONTEXT = SimpleNamespace(
        app_name="bench",
        deployment="bench",
        replica_tag="bench",
        _deployment_config=SimpleNamespace(max_ongoing_requests=10**9),
    )

    # Ray Serve keeps its state on the function, so each batcher needs a new function.
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
    """Return the makers for a loop of all entrants with a window."""
    return {name: maker for name, maker in ON_LOOP.items() if name != AIODATALOADER}


def without_window():
    """Return the makers for a loop of all entrants without a window."""
    return {name: ON_LOOP[name] for name in (FLOOR, OURS, AIODATALOADER)}


# Def functions in threads.


def thread_floor(fn, *, max_size, timeout):
    """Make the floor for threads."""
    return Subject(floors.among_threads(fn, max_size=max_size, timeout=timeout))


def batched_in_thread(fn, *, max_size, timeout):
    """Make a batcher of ``batched`` that runs in a thread."""
    processor = module("batched").dynamically(fn, batch_size=max_size, timeout_ms=1000 * (timeout or 0))
    return Subject(processor, close=processor.shutdown)


def one_thread(fn, **_):
    """Make a pool of one thread, which gets each item on its own."""
    pool = ThreadPoolExecutor(1)
    return Subject(lambda item: pool.submit(fn, [item]).result()[0], close=pool.shutdown)


AMONG_THREADS = {FLOOR: thread_floor, OURS: ours, ADAPTIVE: ours_adaptive, BATCHED: batched_in_thread}


# Def functions on a loop.


def through_acall(maker):
    """Return a maker whose subjects, made by ``maker`` for threads, are called by tasks."""

    def make(fn, **options):
        subject = maker(fn, **options)
        return Subject(subject.call.acall, close=subject.close)

    return make


def with_pool(maker):
    """Return a maker whose subjects, made by ``maker`` for a loop, run each batch in a pool of one thread."""

    def make(fn, **options):
        pool = ThreadPoolExecutor(1)
        hop = get_running_loop().run_in_executor

        async def run(items):
            return await hop(pool, fn, items)

        return Subject(maker(run, **options).call, close=pool.shutdown)

    return make


THROUGH_ACALL = {
    FLOOR_WITH_POOL: with_pool(loop_floor),
    OURS: through_acall(ours),
    ADAPTIVE: through_acall(ours_adaptive),
    BATCHED: through_acall(batched_in_thread),
    ASYNC_BATCHER: async_batcher,
    f"{AIODATALOADER} + pool": with_pool(aiodataloader),
}
