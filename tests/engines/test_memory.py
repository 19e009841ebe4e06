"""What is over leaves nothing behind: neither calls that were answered, nor exceptions that were raised to many."""

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

# So many calls fill all that is kept of the newest items and batches, and so many more must leave nothing.
SIZE, WARM, CALLS = 4, 5_000, 40_000
# In blocks of Python's allocator: much less than one for each batch.
GROWTH = 500


@contextmanager
def uncollected():
    """Let nothing be found by the garbage collector, only by the count of references."""
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
    """Return what makes so many calls of ``fn`` from tasks, on one loop after the other."""

    async def call(count):
        for _ in range(count // 1000):
            assert 1000 == len(await asyncio.gather(*map(fn, range(1000))))

    return lambda count: asyncio.run(call(count))


def from_threads(fn):
    """Return what makes so many calls of ``fn`` from this thread."""

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
def test_calls_leave_nothing_behind(way, monkeypatch):
    """However many calls were answered, there is no more in memory than after the first ones."""
    # What is kept of these takes more or less room, depending on who came together.
    monkeypatch.setattr("batchify._stats.counters.RECENT", WARM // SIZE // 20)
    call = WAYS[way]()
    call(WARM)
    before = blocks()
    call(CALLS)
    assert GROWTH > blocks() - before


@pytest.mark.parametrize("kind", [Tasks, Bridged, Threads], ids=lambda kind: kind.name)
def test_an_exception_for_ten_thousand_leaves_no_frame_alive(kind):
    """An exception that was raised to 10,000 callers keeps nothing alive, and nobody has to look for it."""
    fail, seen = failing()
    kit = kind()
    fn, _ = kit.decorate(fail, max_size=10_000, timeout=3600)
    with uncollected():
        if kind is Threads:
            errors = told([fn.submit(item) for item in range(10_000)])
        else:
            errors = asyncio.run_coroutine_threadsafe(told_on_loop(kit, fn), kit.loop).result(10)
        assert ([KeyError] * 10_000, [None]) == (errors, [local() for local in seen])
    kit.close()


def told(futures):
    """Return the types of the errors that futures have, and raise each of them once."""
    errors = []
    while futures:
        try:
            futures.pop().result(10)
        except KeyError as error:
            errors.append(type(error))
    return errors


async def told_on_loop(kit, fn):
    async def call(item):
        try:
            await (fn.acall(item) if isinstance(kit, Bridged) else fn(item))
        except KeyError as error:
            return type(error)

    return await asyncio.gather(*map(call, range(10_000)))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_loop_that_is_closed_when_answers_are_on_their_way(is_stream):
    """What threads have told a loop that never came to it is gone with the loop."""
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
    # Nobody is to blame for what a closed loop leaves.
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    asked.set()
    fn.close()
    loop.close()
    assert not task.done()
    gone = ref(loop)
    del loop, task, call
    gc.collect()
    assert None is gone()
