"""Closing a batcher while the event loops that run its batches end, each at the worst moment."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from batchify import AsyncMicrobatcher, BatcherClosedError, microbatch
from batchify._batcher.closing import Closing
from tests.kit.columns import forget_batchers, in_time, settle
from tests.kit.engines import HOUR, PATIENCE, Gate, doubled, wait_until


class LoopThread:
    """An event loop in a thread of its own. ``end()`` ends it, by default as ``asyncio.run`` does."""

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
            # It was left on purpose.
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

    # Whether it cancels its tasks at the end.
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
        """Let the loop end, and wait for that."""
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join(PATIENCE)


class Abrupt(LoopThread):
    """A loop that just stops, with pending tasks."""

    clean = False


class EndsWhenAsked(asyncio.SelectorEventLoop):
    """A loop that closes right after it has answered another thread that it runs."""

    place = None

    def is_running(self):
        answer = super().is_running()
        if answer and self.place is not None and threading.current_thread() is not self.place._thread:
            place, self.place = self.place, None
            place.end()
            self.close()
        return answer


def close(fn):
    """Close from a thread without an event loop."""
    fn.close()


def aclose(fn):
    """Close from another event loop."""
    asyncio.run(fn.aclose())


def settled(do):
    """Return a future of ``do()``, which a thread of its own runs."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), daemon=True).start()
    return outcome


def never():
    """Return a batch function that never ends, and a lock that is released when it begins."""
    begun = threading.Semaphore(0)

    async def stuck(items):
        begun.release()
        await asyncio.Event().wait()

    return stuck, begun


def ends(closing):
    """Return the outcome of closing, which must not hang."""
    try:
        return in_time(lambda: closing.result(PATIENCE))
    except BaseException:
        forget_batchers()
        raise


@pytest.fixture(params=[close, aclose])
def way(request):
    """Each way to close from outside."""
    return request.param


@pytest.mark.parametrize("kind", [LoopThread, Abrupt])
def test_a_loop_that_ends_while_its_batch_runs(way, kind):
    """A loop that ends meanwhile does not cancel the wait, whether or not it cancels its own tasks."""
    stuck, begun = never()
    fn = microbatch(stuck, timeout=HOUR)
    with kind() as there:
        caller = there.call(fn, 1)
        closing = settled(lambda: way(fn))
        assert begun.acquire(timeout=PATIENCE)
        there.end()
        assert None is ends(closing)
        assert (there.clean, 0) == (caller.done(), fn.batch_stats.pending)
    assert (0, 1) == (fn.batch_stats.running, fn.batch_stats.cancelled_items)


def test_a_loop_that_stops_before_it_drains(way):
    """Closing does not wait for a loop that stops before it sees the request to drain."""
    fn = microbatch(never()[0], timeout=HOUR)
    gate = Gate(doubled)
    with Abrupt() as there:
        there.call(fn, 1)
        told = threading.Event()
        tell, there.loop.call_soon_threadsafe = there.loop.call_soon_threadsafe, None

        def note(*args, **kwargs):
            tell(*args, **kwargs)
            told.set()

        gate.shut()
        tell(gate, [])
        gate.await_batch()
        # The loop is blocked at the gate, and drains in the iteration in which it stops.
        there.loop.stop()
        there.loop.call_soon_threadsafe = note
        closing = settled(lambda: way(fn))
        assert told.wait(PATIENCE)
        gate.open()
        assert None is ends(closing)
        there.loop.call_soon_threadsafe = tell


def test_a_loop_that_is_closed_before_it_drains(way):
    """Closing works even if a loop is closed right after it was seen running."""
    fn = microbatch(never()[0], timeout=HOUR)
    with LoopThread(EndsWhenAsked()) as there:
        there.call(fn, 1)
        there.loop.place = there
        assert None is ends(settled(lambda: way(fn)))
    assert (0, 1) == (fn.batch_stats.pending, fn.batch_stats.cancelled_items)


def test_a_loop_that_is_closed_before_it_flushes():
    """``flush()`` works even if a loop is closed right after it was seen running."""
    fn = microbatch(never()[0], timeout=HOUR)
    with LoopThread(EndsWhenAsked()) as there:
        there.call(fn, 1)
        there.loop.place = there
        assert None is ends(settled(fn.flush))


def test_a_call_that_arrives_while_the_batcher_is_closed(way):
    """An item that arrives at the very moment of closing does not wait for its window to end."""

    class Slow(asyncio.SelectorEventLoop):
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
    with LoopThread(Slow()) as there:

        async def call(item):
            there.loop.at_clock = gate if item == 2 else None  # the call is accepted but not queued yet
            return await fn(item)

        first = asyncio.run_coroutine_threadsafe(call(1), there.loop)
        wait_until(lambda: fn.batch_stats.pending)
        fn.flush()
        assert 2 == first.result(PATIENCE)
        gate.shut()
        second = asyncio.run_coroutine_threadsafe(call(2), there.loop)
        gate.await_batch()
        closing = settled(lambda: way(fn))
        assert None is ends(closing)
        gate.open()
        assert 4 == second.result(PATIENCE)


def test_loops_whose_batches_wait_for_each_other(way):
    """All loops drain before any is waited for: the batch of one may need that of another."""
    places = [LoopThread(), LoopThread()]

    async def double(items):
        if items == [1]:
            return [await asyncio.wrap_future(second)]
        return doubled(items)

    fn = microbatch(double, timeout=HOUR)
    with places[0], places[1]:
        first, second = places[0].call(fn, 1), places[1].call(fn, 2)
        assert None is ends(settled(lambda: way(fn)))
        assert [4, 4] == [first.result(PATIENCE), second.result(PATIENCE)]


def test_a_loop_with_nothing_to_do_is_not_waited_for(way):
    """Closing does not wait for a loop that is busy with other work and has no item."""

    async def double(items):
        return doubled(items)

    fn = microbatch(double)
    gate = Gate(doubled)
    with LoopThread() as there:
        assert 2 == asyncio.run_coroutine_threadsafe(_call(fn, 1), there.loop).result(PATIENCE)
        gate.shut()
        there.loop.call_soon_threadsafe(gate, [])
        gate.await_batch()
        assert None is ends(settled(lambda: way(fn)))
        gate.open()


async def _call(fn, item):
    return await fn(item)


class Looks:
    """A loop that runs as long as it has answers."""

    def __init__(self, *answers):
        self.is_running = iter(answers).__next__


def test_a_thread_waits_as_long_as_the_loop_runs():
    """A thread that waits for the end of an engine stops when the loop of the engine has ended."""
    looks = Looks(True, True, False)
    Closing().wait(looks)
    with pytest.raises(StopIteration):
        looks.is_running()


async def test_a_task_waits_as_long_as_the_loop_runs():
    """A task that waits for the end of an engine stops when the loop of the engine has ended."""
    looks = Looks(True, True, False)
    await Closing().wait_async(looks)
    with pytest.raises(StopIteration):
        looks.is_running()


async def test_one_of_two_waits_is_cancelled():
    """Cancelling one task that waits for the end disturbs neither the others nor the batch."""
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


def test_a_closing_task_whose_loop_has_ended(caplog):
    """A loop that ends while it waits for another loop, or for threads, causes no error."""
    gate = Gate(doubled)

    async def double(items):
        return await asyncio.get_running_loop().run_in_executor(None, gate, items)

    of_loop, of_threads = microbatch(double, timeout=HOUR), microbatch(lambda items: gate(items), timeout=HOUR)
    gate.shut()
    with LoopThread() as there, Abrupt() as here:
        callers = [there.call(of_loop, 1), of_threads.submit(2)]
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
        in_time(lambda: asyncio.run_coroutine_threadsafe(there.loop.shutdown_default_executor(), there.loop).result())
    assert [] == caplog.records


async def _aclose(fn):
    await fn.aclose()


def test_closing_needs_no_free_thread():
    """``aclose()`` of a ``def`` function works while all threads of the loop's pool are blocked in calls of it."""
    double = microbatch(doubled, timeout=HOUR)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        caller = loop.run_in_executor(None, double, 1)
        wait_until(lambda: double.batch_stats.pending)
        await double.aclose()
        return await caller

    assert 2 == in_time(lambda: asyncio.run(main()))


def test_closing_when_the_pool_of_the_loop_is_shut():
    """``aclose()`` of a ``def`` function works at the very end of a program."""
    double = microbatch(doubled, timeout=HOUR)

    async def main():
        future = double.submit(1)
        await asyncio.get_running_loop().shutdown_default_executor()
        await double.aclose()
        return future.result(0)

    assert 2 == in_time(lambda: asyncio.run(main()))


def test_giving_up_on_closing_leaves_no_thread_behind():
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
