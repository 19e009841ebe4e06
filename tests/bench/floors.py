"""The floors: the minimal code that can batch, as the baseline for batchify.

Must not know: batchify, or any optional feature. A floor has no statistics, errors, cancellation or closing, and it
supports one event loop and one batch function.

Each floor has only the necessary parts. On a loop, these are two lists, a future for each call, a timer or a callback
for the call that opens a batch, and a task for each batch. Threads are leaders and followers: the call that opens a
batch waits for its end with a timeout, and the call that fills it runs it. Each thread keeps one lock to wait on.
"""

from __future__ import annotations

from asyncio import get_running_loop
from concurrent.futures import Future
from functools import partial
from threading import Lock, local


def on_loop(fn, *, max_size, timeout):
    """Return the coroutine function ``call(item)``, and ``submit(item)``, which returns a future, for this loop."""
    loop = get_running_loop()
    create_future, create_task = loop.create_future, loop.create_task
    open_batch = loop.call_soon if timeout is None else partial(loop.call_later, timeout)
    items, futures = [], []
    handle = None

    async def run(items, futures):
        for future, result in zip(futures, await fn(items)):  # noqa: B905  # a floor checks nothing
            future.set_result(result)

    def leave():
        nonlocal items, futures
        handle.cancel()
        create_task(run(items, futures))
        items, futures = [], []

    # These lines occur twice, because a call of one function by the other would distort the figures.
    async def call(item):
        nonlocal handle
        future = create_future()
        items.append(item)
        futures.append(future)
        if len(items) == 1:
            handle = open_batch(leave)
        elif len(items) == max_size:
            leave()
        return await future

    def submit(item):
        nonlocal handle
        future = create_future()
        items.append(item)
        futures.append(future)
        if len(items) == 1:
            handle = open_batch(leave)
        elif len(items) == max_size:
            leave()
        return future

    return call, submit


class Waiter:
    """The lock on which a thread waits, and its result."""

    __slots__ = ("lock", "result")

    def __init__(self):
        self.lock = Lock()
        self.lock.acquire()


class ThreadWaiter(local):
    """The waiter of each thread."""

    def __init__(self):
        self.waiter = Waiter()


def among_threads(fn, *, max_size, timeout):
    """Return ``call(item)``, which blocks."""
    kept = ThreadWaiter()
    lock = Lock()
    items, waiters = [], []

    def call(item):
        nonlocal items, waiters
        own = kept.waiter
        with lock:
            batch_items, batch_waiters = items, waiters
            batch_items.append(item)
            batch_waiters.append(own)
            place = len(batch_items)
            if place == max_size:
                items, waiters = [], []
        if place == max_size:
            return _run_batch(fn, batch_items, batch_waiters, own)
        if place > 1:
            own.lock.acquire()
            return own.result
        if own.lock.acquire(timeout=timeout):
            return own.result
        with lock:
            is_late = items is batch_items
            if is_late:
                items, waiters = [], []
        if is_late:
            return _run_batch(fn, batch_items, batch_waiters, own)
        # Another call filled the batch at the last moment, and runs it.
        own.lock.acquire()
        return own.result

    return call


def _run_batch(fn, items, waiters, own):
    for waiter, result in zip(waiters, fn(items)):  # noqa: B905  # as above
        waiter.result = result
        if waiter is not own:
            waiter.lock.release()
    return own.result


def with_futures(fn, *, max_size):
    """Return ``submit(item)``, which returns a ``concurrent.futures.Future``. The call that fills a batch runs it."""
    items, futures = [], []

    def submit(item):
        nonlocal items, futures
        future = Future()
        items.append(item)
        futures.append(future)
        if len(items) == max_size:
            for waiting, result in zip(futures, fn(items)):  # noqa: B905  # as above
                waiting.set_result(result)
            items, futures = [], []
        return future

    return submit
