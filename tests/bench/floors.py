"""The floors: the least code that can batch at all, which is what batchify is measured against.

Must not know: batchify, and anything that somebody could want of a batcher: no stats, no errors, no cancellation, no
closing, one event loop, one batch function.

Each has the parts that cannot be left out. On a loop: two lists, a future for each call, a timer or a callback for the
call that opens a batch, and a task for each batch. Among threads, leader and follower: who opens a batch waits for its
end with a timeout, who fills it runs it, and each thread keeps one lock to wait on.
"""

from __future__ import annotations

from asyncio import get_running_loop
from concurrent.futures import Future
from functools import partial
from threading import Lock, local


def on_loop(fn, *, max_size, timeout):
    """Return for the running loop ``call(item)``, a coroutine function, and ``submit(item)``, for a bare future."""
    loop = get_running_loop()
    create_future, create_task = loop.create_future, loop.create_task
    open_batch = loop.call_soon if timeout is None else partial(loop.call_later, timeout)
    items, futures = [], []
    handle = None

    async def run(items, futures):
        for future, result in zip(futures, await fn(items)):  # noqa: B905  # checking is what a floor leaves out
            future.set_result(result)

    def leave():
        nonlocal items, futures
        handle.cancel()
        create_task(run(items, futures))
        items, futures = [], []

    # The same lines twice: one calling the other would cost what is measured.
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
    """What a thread waits on: a lock that it keeps, and the place for its result."""

    __slots__ = ("lock", "result")

    def __init__(self):
        self.lock = Lock()
        self.lock.acquire()


class Kept(local):
    """The waiter of each thread."""

    def __init__(self):
        self.waiter = Waiter()


def among_threads(fn, *, max_size, timeout):
    """Return ``call(item)``, which blocks."""
    kept = Kept()
    lock = Lock()
    items, waiters = [], []

    def call(item):
        nonlocal items, waiters
        own = kept.waiter
        with lock:
            mine, companions = items, waiters
            mine.append(item)
            companions.append(own)
            place = len(mine)
            if place == max_size:
                items, waiters = [], []
        if place == max_size:
            return _lead(fn, mine, companions, own)
        if place > 1:
            own.lock.acquire()
            return own.result
        if own.lock.acquire(timeout=timeout):
            return own.result
        with lock:
            is_late = items is mine
            if is_late:
                items, waiters = [], []
        if is_late:
            return _lead(fn, mine, companions, own)
        # It was filled at the last moment, by one who runs it.
        own.lock.acquire()
        return own.result

    return call


def _lead(fn, items, waiters, own):
    for waiter, result in zip(waiters, fn(items)):  # noqa: B905  # as above
        waiter.result = result
        if waiter is not own:
            waiter.lock.release()
    return own.result


def with_futures(fn, *, max_size):
    """Return ``submit(item)``, which returns a ``concurrent.futures.Future``: who fills a batch runs it."""
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
