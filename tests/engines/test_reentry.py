"""Finalizers and signal handlers that use a function of an event loop in the middle of any step of it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest

from batchify import AsyncMicrobatcher, BatcherClosedError, ReentrantCallError, microbatch
from batchify._asyncio.engine import AsyncEngine
from batchify._core.grouped import GroupedQueue
from batchify.testing import VirtualLoop
from batchify.testing.virtual_time import closing_loop
from tests.kit.interrupter import at_points
from tests.kit.steps import at_calls

# A run is interrupted once in so many points.
STRIDE = 199


async def use(fn, calls):
    """Use a function in all ways, with plain calls first."""
    calls.append(fn.submit(1))
    await asyncio.sleep(1)
    calls += [fn.submit(2), fn.submit(3), fn.submit(4)]
    calls[-1].cancel()
    await asyncio.sleep(0)
    calls[-2].cancel()
    calls.append(fn.options(priority=1).submit(5))
    fn.flush()
    await asyncio.sleep(1)
    calls += [fn.options(deadline=1).submit(item) for item in (6, 7, 8)]
    calls[-1].cancel()
    fn.configure(max_size=3)
    calls.append(fn.submit(9))
    await asyncio.sleep(3)


OTHERS = {
    "submit": lambda fn, calls: calls.append(fn.submit(0)),
    "submit with a priority": lambda fn, calls: calls.append(fn.options(priority=1).submit(0)),
    "cancel": lambda fn, calls: [call.cancel() for call in calls[-1:]],
    "flush": lambda fn, calls: fn.flush(),
    "configure": lambda fn, calls: fn.configure(max_size=2 + len(calls) % 2),
}


@pytest.mark.untraced
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("options", [{}, {"group_by": type}], ids=["plain", "grouped"])
def test_an_interruption_at_any_point(options, other):
    """If the function is used wherever CPython runs signal handlers, every call is answered or refused."""
    with closing_loop(VirtualLoop()) as loop:
        errors = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        for first in range(0, STRIDE, 25):

            @microbatch(max_size=2, timeout=1, **options)
            async def echo(items):
                await asyncio.sleep(0)
                return items

            calls = []

            def interrupt(step, fn=echo, calls=calls, first=first):
                if step % STRIDE == first:
                    with suppress(ReentrantCallError):
                        OTHERS[other](fn, calls)

            at_points(lambda calls=calls, fn=echo: loop.run_until_complete(use(fn, calls)), interrupt)

            async def end(fn=echo, calls=calls):
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 9)
                answers = [call.done() for call in calls]
                await fn.aclose()
                return answers

            answers = loop.run_until_complete(end())
            assert all(answers)
            assert (0, 0) == (echo.batch_stats.pending, echo.batch_stats.running)
        assert [] == errors


class Scene:
    """Two calls that fill a batch, and one that waits for its window while another slot is free."""

    def __init__(self):
        self.loop = VirtualLoop()
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.fn = microbatch(echo, max_size=2, timeout=1, concurrency=2)
        self.calls = []

    def run(self):
        self.loop.run_until_complete(self.call())

    async def call(self):
        for item in range(3):
            self.calls.append(self.fn.submit(item))
        await asyncio.sleep(2)

    def end(self):
        """Return whether all calls have ended."""
        self.loop.run_until_complete(asyncio.sleep(2))
        self.loop.close()
        stats = self.fn.batch_stats
        return all(call.done() for call in self.calls) and (0, 0) == (stats.pending, stats.running)


SIGNALS = {
    "cancel": lambda scene: [call.cancel() for call in scene.calls[-1:]],
    "configure": lambda scene: scene.fn.configure(max_size=1),
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_at_any_call(signal, monkeypatch):
    """Whatever a signal handler does at a call of the engine, or at its return, every call ends."""
    number = steps = 0
    while number <= steps:
        scene = Scene()
        # An idle engine uses the clock of asyncio's own loops.
        monkeypatch.setattr("batchify._asyncio.engine.monotonic", scene.loop.time)
        steps = at_calls(scene.run, lambda step, scene=scene, number=number: step == number and SIGNALS[signal](scene))
        assert (True, []) == (scene.end(), scene.errors)
        number += 1
    assert number > 100


def test_an_interrupt_just_after_a_departure(monkeypatch):
    """If Ctrl-C interrupts the plan that follows a departure, another task runs the batch."""
    scene = Scene()
    start_or_schedule = AsyncEngine.start_or_schedule

    def interrupt(engine):
        if engine.line.queue.running:
            monkeypatch.setattr(AsyncEngine, "start_or_schedule", start_or_schedule)
            raise KeyboardInterrupt
        start_or_schedule(engine)

    monkeypatch.setattr(AsyncEngine, "start_or_schedule", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scene.run()
    assert scene.end()
    assert [0, 1, 2] == [call.result() for call in scene.calls]


@pytest.mark.untraced
async def test_a_finalizer_at_each_allocation():
    """Finalizers that call while the collector runs at each allocation hang no call."""
    armed = True

    @microbatch(max_size=4, timeout=0)
    async def echo(items):
        await asyncio.sleep(0)
        return items

    calls = []

    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            if armed and len(calls) < 500:
                Garbage()
                with suppress(ReentrantCallError):
                    calls.append(echo.options(priority=1).submit(len(calls)))

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        Garbage()
        answers = await asyncio.gather(*(echo.options(priority=n % 3)(n) for n in range(100)))
    finally:
        gc.set_threshold(*thresholds)
        armed = False
    assert list(range(100)) == answers
    assert calls
    assert list(range(len(calls))) == await asyncio.gather(*calls)


async def echo(items):
    return items


async def test_a_call_as_the_engine_becomes_idle(monkeypatch):
    """A finalizer that calls while the engine becomes idle has its answer."""
    batcher, calls = AsyncMicrobatcher(echo, 2, None), []
    cancel_timer = AsyncEngine._cancel_timer

    def call_first(engine):
        monkeypatch.setattr(AsyncEngine, "_cancel_timer", cancel_timer)
        calls.append(batcher._submit_nowait(2))
        cancel_timer(engine)

    monkeypatch.setattr(AsyncEngine, "_cancel_timer", call_first)
    assert 1 == await batcher.submit(1)
    await asyncio.sleep(0)
    assert 2 == await calls[0]


def test_an_exit_just_after_an_answer():
    """An engine becomes idle, and so releases its loop, even if its last caller ends the program."""
    batcher = AsyncMicrobatcher(echo, 2, None)

    async def call_and_exit():
        await batcher.submit(1)
        raise SystemExit

    with closing_loop(VirtualLoop()) as loop:
        with pytest.raises(SystemExit):
            loop.run_until_complete(call_and_exit())
        (engine,) = batcher._by_loop.values()
        assert engine.running_loop is None


@pytest.mark.parametrize("size", [1, 9], ids=["the next call", "the end of the window"])
async def test_an_arrival_that_an_error_interrupts(monkeypatch, size):
    """The next call, or the end of the window, completes an arrival that a ``MemoryError`` has interrupted."""
    batcher = AsyncMicrobatcher(echo, size, 5, group_by=type)
    first = batcher._submit_nowait(1)

    def fail(queue):
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(GroupedQueue, "admit_waiting", fail)
    with pytest.raises(MemoryError):
        batcher._submit_nowait(2)
    if size == 1:
        assert 3 == await batcher.submit(3)
    assert 1 == await first
    assert (0, 0) == (batcher.stats.pending, batcher.stats.running)


async def test_the_middle_of_a_step():
    """In the middle of a step, a call is refused, and all else happens after it."""
    batcher = AsyncMicrobatcher(echo, 2, 5, group_by=type)
    first, second = batcher._submit_nowait(1), batcher._submit_nowait("b")
    (engine,) = batcher._by_loop.values()
    with engine.line.stats.lock:
        with pytest.raises(ReentrantCallError, match="by a finalizer or signal handler in the middle of another call"):
            batcher._submit_nowait(2)
        first.cancel()
        batcher.flush()
        batcher._change({"max_size": 3})
        engine.start_or_schedule()
        assert (2, 2) == (batcher.stats.pending, engine.line.config.max_size)
    assert "b" == await second
    assert (1, 3) == (batcher.stats.cancelled_items, engine.line.config.max_size)
    assert 0.0 == asyncio.get_running_loop().time()


async def test_dropping_the_queue_in_the_middle_of_a_step():
    """The end of the time limit of a close drops the queued items after the step."""
    batcher = AsyncMicrobatcher(echo, 2, 5)
    call = batcher._submit_nowait(1)
    (engine,) = batcher._by_loop.values()
    with engine.line.stats.lock:
        engine.drop_queued()
        assert 1 == batcher.stats.pending
    with pytest.raises(BatcherClosedError):
        await call


async def test_a_call_while_the_engine_becomes_idle():
    """A finalizer may call just as the last batch ends, or act on an engine that has become idle."""
    batcher = AsyncMicrobatcher(echo, 2, 5)
    calls = [batcher._submit_nowait(1)]
    (engine,) = batcher._by_loop.values()

    class Timer:
        def cancel(self):
            calls.append(batcher._submit_nowait(2))

    engine._timer.cancel()
    engine._timer = Timer()
    calls.pop().cancel()
    assert 2 == await calls[0]
    assert engine.running_loop is None
    engine.start_or_schedule()
    assert engine.running_loop is None
