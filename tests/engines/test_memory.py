"""Memory is freed: answered calls keep nothing, and an exception raised to many callers keeps no frame."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import contextmanager
from weakref import ref

import pytest

from batchify import microbatch
from tests.kit.engines import PATIENCE, Bridged, Tasks, Threads, doubled, failing

# The first calls fill the statistics of recent items and batches. All further calls must not take more memory.
SIZE, WARM, CALLS = 4, 5_000, 40_000
# In blocks of Python's allocator: far fewer than one for each batch.
GROWTH = 500


@contextmanager
def uncollected():
    """Disable the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def blocks():
    gc.collect()
    return sys.getallocatedblocks()


async def double_on_loop(items):
    return doubled(items)


def from_tasks(fn):
    """Return a function that makes a number of calls of ``fn`` from tasks."""

    async def call(count):
        for _ in range(count // 1000):
            assert 1000 == len(await asyncio.gather(*map(fn, range(1000))))

    return lambda count: asyncio.run(call(count))


def from_threads(fn):
    """Return a function that makes a number of calls of ``fn`` from this thread."""

    def call(count):
        for _ in range(count // 1000):
            assert 999_000 == sum(fn.map(range(1000)))

    return call


WAYS = {
    "asyncio": lambda: from_tasks(microbatch(double_on_loop, max_size=SIZE)),
    "acall": lambda: from_tasks(microbatch(doubled, max_size=SIZE).acall),
    "threads": lambda: from_threads(microbatch(doubled, max_size=SIZE)),
}


@pytest.mark.untraced
@pytest.mark.parametrize("way", WAYS)
def test_answered_calls_take_no_memory(way, monkeypatch):
    """After any number of answered calls, memory has no more objects than after the first calls."""
    # The statistics of recent batches take more or less memory, depending on which calls shared a batch.
    monkeypatch.setattr("batchify._stats.sums.RECENT", WARM // SIZE // 20)
    monkeypatch.setattr("batchify._stats.counters.MANY", 1)
    call = WAYS[way]()
    call(WARM)
    before = blocks()
    call(CALLS)
    assert GROWTH > blocks() - before


@pytest.mark.parametrize("kind", [Tasks, Bridged, Threads], ids=lambda kind: kind.name)
def test_an_exception_for_ten_thousand_callers_keeps_no_frame_alive(kind):
    """An exception raised to 10,000 callers keeps no frame alive, and no garbage collection is needed."""
    fail, seen = failing()
    kit = kind()
    fn, _ = kit.decorate(fail, max_size=10_000, timeout=3600)
    with uncollected():
        if kind is Threads:
            errors = errors_of([fn.submit(item) for item in range(10_000)])
        else:
            errors = asyncio.run_coroutine_threadsafe(errors_on_loop(kit, fn), kit.loop).result(10)
        assert ([KeyError] * 10_000, [None]) == (errors, [local() for local in seen])
    kit.close()


def errors_of(futures):
    """Raise the error of each future once, and return the types."""
    errors = []
    while futures:
        try:
            futures.pop().result(10)
        except KeyError as error:
            errors.append(type(error))
    return errors


async def errors_on_loop(kit, fn):
    async def call(item):
        try:
            await (fn.acall(item) if isinstance(kit, Bridged) else fn(item))
        except KeyError as error:
            return type(error)

    return await asyncio.gather(*map(call, range(10_000)))


@pytest.mark.parametrize("is_stream", [False, True])
def test_answers_to_a_closed_loop_are_freed(is_stream):
    """Answers from threads to a loop that closed before it received them are freed with the loop."""
    asked = threading.Event()

    @microbatch
    def double(items):
        asked.wait(PATIENCE)
        return doubled(items)

    @microbatch
    def count(items):
        asked.wait(PATIENCE)
        yield items

    async def read():
        return [value async for value in count.acall(1)]

    fn, call = (count, read()) if is_stream else (double, double.acall(1))
    loop = asyncio.new_event_loop()
    task = loop.create_task(call)
    # The closed loop leaves the task pending, and asyncio must not log that.
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    asked.set()
    fn.close()
    loop.close()
    assert not task.done()
    freed = ref(loop)
    del loop, task, call
    gc.collect()
    assert None is freed()
