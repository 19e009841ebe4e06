"""Closing a batcher while the event loops that run its batches end at different moments."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from batchify import AsyncMicrobatcher, BatcherClosedError, microbatch
from batchify._batcher.draining import End, wait_for, wait_for_async
from tests.kit.columns import forget_batchers, in_time, settle
from tests.kit.engines import HOUR, PATIENCE, Gate, doubled, wait_until


class LoopThread:
    """An event loop in its own thread. ``end()`` ends it, by default as ``asyncio.run`` does."""

    def __init__(self, loop=None):
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loop")
        self._main = self.loop.create_future()

    def __enter__(self):
        self._thread.start()
        wait_until(self.loop.is_running)
        return self

    def __exit__(self, *error):
        self.end()
        for task in asyncio.all_tasks(self.loop):
            # The test leaves the task pending on purpose.
            task._log_destroy_pending = False
        self.loop.close()

    def _run(self):
        # A loop that was stopped raises RuntimeError.
        with suppress(asyncio.CancelledError, RuntimeError):
            self.loop.run_until_complete(self._main)
        if self.clean:
            self._cancel_all()

    def _cancel_all(self):
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                self.loop.run_until_complete(task)

    # Whether the loop cancels its tasks at the end.
    clean = True

    def call(self, fn, item):
        """Call, and return when the item is queued."""

        async def call():
            return await fn(item)

        before = fn.batch_stats.pending
        caller = asyncio.run_coroutine_threadsafe(call(), self.loop)
        wait_until(lambda: fn.batch_stats.pending > before)
        return caller

    def end(self):
        """End the loop, and wait for its thread."""
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join(PATIENCE)


class StoppingLoopThread(LoopThread):
    """A loop that stops with pending tasks."""

    clean = False


class LoopThatClosesWhenSeen(asyncio.SelectorEventLoop):
    """A loop that closes right after another thread has seen it running."""

    owner = None

    def is_running(self):
        answer = super().is_running()
        if answer and self.owner is not None and threading.current_thread() is not self.owner._thread:
            owner, self.owner = self.owner, None
            owner.end()
            self.close()
        return answer


def close(fn):
    """Close from a thread without an event loop."""
    fn.close()


def aclose(fn):
    """Close from another event loop."""
    asyncio.run(fn.aclose())


def in_new_thread(do):
    """Return a future of ``do()``, which a new thread runs."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), daemon=True).start()
    return outcome


def endless():
    """Return a batch function that never ends, and a lock that is released when it begins."""
    begun = threading.Semaphore(0)

    async def wait_for_ever(items):
        begun.release()
        await asyncio.Event().wait()

    return wait_for_ever, begun


def result_of(closing):
    """Return the outcome of closing, which must not hang."""
    try:
        return in_time(lambda: closing.result(PATIENCE))
    except BaseException:
        forget_batchers()
        raise


@pytest.fixture(params=[close, aclose])
def close_fn(request):
    """Each function that closes a batcher from outside of its loop."""
    return request.param


@pytest.mark.parametrize("kind", [LoopThread, StoppingLoopThread])
def test_closing_waits_for_a_batch_whose_loop_ends(close_fn, kind):
    """The end of the loop does not cancel the wait, whether or not the loop cancels its tasks."""
    wait_for_ever, begun = endless()
    fn = microbatch(wait_for_ever, timeout=HOUR)
    with kind() as loop_thread:
        caller = loop_thread.call(fn, 1)
        closing = in_new_thread(lambda: close_fn(fn))
        assert begun.acquire(timeout=PATIENCE)
        loop_thread.end()
        assert None is result_of(closing)
        assert (loop_thread.clean, 0) == (caller.done(), fn.batch_stats.pending)
    assert (0, 1) == (fn.batch_stats.running, fn.batch_stats.cancelled_items)


def test_closing_does_not_wait_for_a_loop_that_stops(close_fn):
    """Closing ends although a loop stops before it processes the request to drain."""
    fn = microbatch(endless()[0], timeout=HOUR)
    gate = Gate(doubled)
    with StoppingLoopThread() as loop_thread:
        loop_thread.call(fn, 1)
        told = threading.Event()
        call_soon, loop_thread.loop.call_soon_threadsafe = loop_thread.loop.call_soon_threadsafe, None

        def note(*args, **kwargs):
            call_soon(*args, **kwargs)
            told.set()

        gate.shut()
        call_soon(gate, [])
        gate.await_batch()
        # The loop is blocked at the gate, and drains in the iteration in which it stops.
        loop_thread.loop.stop()
        loop_thread.loop.call_soon_threadsafe = note
        closing = in_new_thread(lambda: close_fn(fn))
        assert told.wait(PATIENCE)
        gate.open()
        assert None is result_of(closing)
        loop_thread.loop.call_soon_threadsafe = call_soon


def test_closing_does_not_wait_for_a_closed_loop(close_fn):
    """Closing works even if a loop is closed right after it was seen running."""
    fn = microbatch(endless()[0], timeout=HOUR)
    with LoopThread(LoopThatClosesWhenSeen()) as loop_thread:
        loop_thread.call(fn, 1)
        loop_thread.loop.owner = loop_thread
        assert None is result_of(in_new_thread(lambda: close_fn(fn)))
    assert (0, 1) == (fn.batch_stats.pending, fn.batch_stats.cancelled_items)


def test_a_flush_ignores_a_closed_loop():
    """``flush()`` works even if a loop is closed right after it was seen running."""
    fn = microbatch(endless()[0], timeout=HOUR)
    with LoopThread(LoopThatClosesWhenSeen()) as loop_thread:
        loop_thread.call(fn, 1)
        loop_thread.loop.owner = loop_thread
        assert None is result_of(in_new_thread(fn.flush))


def test_closing_flushes_a_call_that_arrives_meanwhile(close_fn):
    """An item that arrives at the very moment of closing does not wait for its window to end."""

    class LoopWithSlowClock(asyncio.SelectorEventLoop):
        """A loop whose clock can block its reader."""

        at_clock = None

        def time(self):
            if self.at_clock is not None:
                at_clock, self.at_clock = self.at_clock, None
                at_clock([])
            return super().time()

    async def double(items):
        return doubled(items)

    fn = microbatch(double, timeout=HOUR)
    gate = Gate(doubled)
    with LoopThread(LoopWithSlowClock()) as loop_thread:

        async def call(item):
            loop_thread.loop.at_clock = gate if item == 2 else None  # the call is accepted but not queued yet
            return await fn(item)

        first = asyncio.run_coroutine_threadsafe(call(1), loop_thread.loop)
        wait_until(lambda: fn.batch_stats.pending)
        fn.flush()
        assert 2 == first.result(PATIENCE)
        gate.shut()
        second = asyncio.run_coroutine_threadsafe(call(2), loop_thread.loop)
        gate.await_batch()
        closing = in_new_thread(lambda: close_fn(fn))
        assert None is result_of(closing)
        gate.open()
        assert 4 == second.result(PATIENCE)


def test_closing_drains_loops_whose_batches_wait_for_each_other(close_fn):
    """All loops drain before closing waits for any, because a batch of one may need that of another."""
    places = [LoopThread(), LoopThread()]

    async def double(items):
        if items == [1]:
            return [await asyncio.wrap_future(second)]
        return doubled(items)

    fn = microbatch(double, timeout=HOUR)
    with places[0], places[1]:
        first, second = places[0].call(fn, 1), places[1].call(fn, 2)
        assert None is result_of(in_new_thread(lambda: close_fn(fn)))
        assert [4, 4] == [first.result(PATIENCE), second.result(PATIENCE)]


def test_closing_does_not_wait_for_a_loop_without_items(close_fn):
    """Closing does not wait for a loop that is busy with other work and has no item."""

    async def double(items):
        return doubled(items)

    fn = microbatch(double)
    gate = Gate(doubled)
    with LoopThread() as loop_thread:
        assert 2 == asyncio.run_coroutine_threadsafe(_call(fn, 1), loop_thread.loop).result(PATIENCE)
        gate.shut()
        loop_thread.loop.call_soon_threadsafe(gate, [])
        gate.await_batch()
        assert None is result_of(in_new_thread(lambda: close_fn(fn)))
        gate.open()


async def _call(fn, item):
    return await fn(item)


class LoopStub:
    """A loop whose ``is_running()`` returns the given answers."""

    def __init__(self, *answers):
        self.is_running = iter(answers).__next__


def _end_on(loop):
    end = End()
    end.loop = loop
    return end


def test_a_thread_waits_as_long_as_the_loop_runs():
    """A thread that waits for the end of an engine stops when the loop of the engine has ended."""
    loop = LoopStub(True, True, False)
    assert wait_for([_end_on(loop)], None)
    with pytest.raises(StopIteration):
        loop.is_running()


async def test_a_task_waits_as_long_as_the_loop_runs():
    """A task that waits for the end of an engine stops when the loop of the engine has ended."""
    loop = LoopStub(True, True, False)
    assert await wait_for_async([_end_on(loop)], None)
    with pytest.raises(StopIteration):
        loop.is_running()


async def test_a_cancelled_wait_does_not_affect_other_waits():
    """Cancelling one task that waits for the end affects neither the other tasks nor the batch."""
    gate = asyncio.Event()

    async def double(items):
        await gate.wait()
        return doubled(items)

    batcher = AsyncMicrobatcher(double, batch_wait_timeout_s=HOUR)
    caller = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0)
    gone, stays = asyncio.ensure_future(batcher.stop()), asyncio.ensure_future(batcher.stop())
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert not stays.done()
    gate.set()
    assert (2, None) == (await caller, await stays)


def test_a_loop_may_end_while_it_closes_a_batcher(caplog):
    """A loop that ends while it waits for another loop, or for threads, causes no error."""
    gate = Gate(doubled)

    async def double(items):
        return await asyncio.get_running_loop().run_in_executor(None, gate, items)

    of_loop, of_threads = microbatch(double, timeout=HOUR), microbatch(lambda items: gate(items), timeout=HOUR)
    gate.shut()
    with LoopThread() as loop_thread, StoppingLoopThread() as here:
        callers = [loop_thread.call(of_loop, 1), of_threads.submit(2)]
        for fn in of_loop, of_threads:
            asyncio.run_coroutine_threadsafe(_aclose(fn), here.loop)
            gate.await_batch()
        here.end()
        left = asyncio.all_tasks(here.loop)
        here.loop.close()
        gate.open()
        assert [2, 4] == [caller.result(PATIENCE) for caller in callers]
        for task in left:
            task._log_destroy_pending = False
        loop = loop_thread.loop
        in_time(lambda: asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result())
    assert [] == caplog.records


async def _aclose(fn):
    await fn.aclose()


def test_closing_needs_no_free_thread():
    """``aclose()`` of a ``def`` function works while its calls block all threads of the loop's pool."""
    double = microbatch(doubled, timeout=HOUR)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        caller = loop.run_in_executor(None, double, 1)
        wait_until(lambda: double.batch_stats.pending)
        await double.aclose()
        return await caller

    assert 2 == in_time(lambda: asyncio.run(main()))


def test_closing_works_after_the_pool_of_the_loop_is_shut_down():
    """``aclose()`` of a ``def`` function works at the very end of a program."""
    double = microbatch(doubled, timeout=HOUR)

    async def main():
        future = double.submit(1)
        await asyncio.get_running_loop().shutdown_default_executor()
        await double.aclose()
        return future.result(0)

    assert 2 == in_time(lambda: asyncio.run(main()))


def test_a_cancelled_aclose_leaves_no_thread():
    """An ``aclose()`` that is cancelled while a batch never ends does not keep ``asyncio.run`` from ending."""
    gate = Gate(doubled)
    double = microbatch(lambda items: gate(items))

    async def main():
        gate.shut()
        double.submit(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(double.aclose(), 0.001)
        with pytest.raises(BatcherClosedError):
            double.submit(2)

    in_time(lambda: asyncio.run(main()))
    gate.open()


def test_an_end_that_is_cancelled_may_be_set():
    """A drain may end just as its timeout is over, in any order, and a second end changes nothing."""
    end = End()
    end.cancel()
    end.set()
    assert end.cancelled()
    end = End()
    end.set()
    end.set()
    assert end.result() is None
