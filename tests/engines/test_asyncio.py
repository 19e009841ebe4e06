"""The asyncio engine, in made-up time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import warnings
import weakref

import pytest

import batchify
from batchify import AsyncMicrobatcher, BatchAbortedError, BatcherClosedError, microbatch
from batchify._asyncio.engine import AsyncEngine
from batchify.testing import VirtualLoop
from tests.kit.engines import wait_until


def recorder(moment=lambda: None, seconds=0.0, **options):
    """Return a decorated echo function that takes ``seconds``, and the list of its batches with their departures."""
    batches = []

    @microbatch(**options)
    async def echo(items):
        batches.append((moment(), list(items)))
        await asyncio.sleep(seconds)
        return items

    return echo, batches


class Done(asyncio.Future):
    """A task, as far as anybody looks at it."""

    def set_name(self, name):
        pass


def at_once(loop, coroutine, **kwargs):
    """Run what does not give way to the loop before there is a task, as an eager task factory does."""
    done = Done(loop=loop)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    done.set_result(None)
    return done


class BatchedAtOnce:
    """A callable object that answers without giving way to the loop."""

    async def __call__(self, items):
        return items


async def test_items_within_a_window_share_a_batch(moment):
    """With a window of 50 ms, items that arrive 10 ms apart travel together, 50 ms after the first."""
    echo, batches = recorder(moment, timeout=0.05)
    calls = []
    for n in range(4):
        calls.append(asyncio.ensure_future(echo(n)))
        await asyncio.sleep(0.01)
    assert [0, 1, 2, 3] == await asyncio.gather(*calls)
    assert [(0.05, [0, 1, 2, 3])] == batches
    assert 1 == echo.batch_stats.reasons["timeout"]


async def test_later_arrivals_do_not_push_the_window_back(moment):
    """An item that comes at the last moment leaves with the first one, at the time of the first one."""
    echo, batches = recorder(moment, timeout=0.05)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.049)
    await asyncio.gather(first, echo(2))
    assert [(0.05, [1, 2])] == batches


async def test_the_window_of_what_is_left_over_begins_at_its_own_arrival(moment):
    """After a full batch has left, the next item waits from its own arrival on."""
    echo, batches = recorder(moment, timeout=0.05, max_size=2)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.03)
    await asyncio.gather(first, echo(2), echo(3))
    assert [(0.03, [1, 2]), (0.08, [3])] == batches


async def test_waiting_for_a_busy_function_counts(moment):
    """An item whose window passed while the function was busy leaves as soon as the slot is free."""
    echo, batches = recorder(moment, seconds=1, timeout=0.05)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.5)
    await asyncio.gather(first, echo(2))
    assert [(0.05, [1]), (1.05, [2])] == batches
    assert (1, 1) == (echo.batch_stats.reasons["timeout"], echo.batch_stats.reasons["slot"])


async def test_a_window_of_zero_still_gathers_one_iteration(moment):
    """With ``timeout=0``, calls of one loop iteration travel together, without waiting."""
    echo, batches = recorder(moment, timeout=0)
    await asyncio.gather(*map(echo, range(5)))
    assert [(0.0, [0, 1, 2, 3, 4])] == batches


async def test_a_lone_call_does_not_wait(moment):
    """With adaptive timing a call that finds nothing running leaves at once."""
    echo, batches = recorder(moment)
    await echo(1)
    assert [(0.0, [1])] == batches
    assert 1 == echo.batch_stats.reasons["idle"]


async def test_a_gather_makes_one_batch(moment):
    """``gather`` of 32 calls makes one batch of 32."""
    echo, batches = recorder(moment)
    assert list(range(32)) == await asyncio.gather(*map(echo, range(32)))
    assert [(0.0, list(range(32)))] == batches
    assert 1 == echo.batch_stats.reasons["full"]


async def test_items_gather_while_a_batch_runs(moment):
    """With adaptive timing, what comes while a batch runs leaves the moment it ends."""
    echo, batches = recorder(moment, seconds=1)
    calls = [asyncio.ensure_future(echo(1))]
    for n in (2, 3):
        await asyncio.sleep(0.25)
        calls.append(asyncio.ensure_future(echo(n)))
    await asyncio.gather(*calls)
    assert [(0.0, [1]), (1.0, [2, 3])] == batches
    assert 1 == echo.batch_stats.reasons["slot"]


async def test_answered_callers_can_come_back_before_the_next_batch(moment):
    """Callers in a closed loop do not fall into two groups that take turns."""
    echo, batches = recorder(moment, seconds=1)

    async def client(n):
        for _ in range(3):
            await echo(n)

    late = asyncio.ensure_future(client(1))
    await asyncio.sleep(0.5)
    await asyncio.gather(late, client(2))
    assert [(0.0, [1]), (1.0, [2, 1]), (2.0, [2, 1]), (3.0, [2])] == batches


async def test_departures_are_spaced_with_several_slots(moment):
    """With adaptive timing and two slots, departures keep half a run time's distance."""
    echo, batches = recorder(moment, seconds=1, concurrency=2)
    await echo(0)
    calls = []
    for n in range(1, 5):
        calls.append(asyncio.ensure_future(echo(n)))
        await asyncio.sleep(0.125)
    await asyncio.gather(*calls)
    assert [(0.0, [0]), (1.0, [1]), (1.5, [2, 3, 4])] == batches


async def test_an_idle_batcher_does_not_wake_the_loop():
    """A second without calls passes in one leap."""
    echo, _ = recorder(timeout=0.05)
    await echo(1)
    loop = asyncio.get_running_loop()
    before = loop.leaps
    await asyncio.sleep(1)
    assert 1 == loop.leaps - before


async def test_a_full_batch_leaves_no_timer_behind():
    """When a batch left early because it was full, the loop is not woken for its window."""
    echo, _ = recorder(timeout=0.05, max_size=2)
    await asyncio.gather(echo(1), echo(2))
    loop = asyncio.get_running_loop()
    before = loop.leaps
    await asyncio.sleep(1)
    assert 1 == loop.leaps - before


async def test_a_caller_cancelled_in_the_iteration_of_the_departure_is_not_run():
    """A caller cancelled just before its batch leaves, and not yet told so, is not run."""
    echo, batches = recorder(timeout=0.05)
    gone, stays = asyncio.ensure_future(echo(1)), asyncio.ensure_future(echo(2))
    asyncio.get_running_loop().call_at(0.05, gone.cancel)
    await asyncio.sleep(0)
    assert 2 == await stays
    assert [[2]] == [items for _, items in batches]
    assert 1 == echo.batch_stats.cancelled_items


async def test_a_batch_of_callers_who_all_left_at_the_last_moment_is_not_run():
    """When all callers are cancelled just before their batch leaves, the function is not called."""
    echo, batches = recorder()
    gone = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(1)
    assert [] == batches
    assert 2 == await echo(2)


@pytest.mark.parametrize("method", [lambda fn: asyncio.ensure_future(fn(1)), lambda fn: fn.submit(1)])
async def test_a_batch_that_nobody_waits_for_is_cancelled(moment, method):
    """When every caller of a running batch has been cancelled, the batch is cancelled and its slot is free."""
    ended = []

    @microbatch
    async def slow(items):
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(moment())
        return items

    callers = [method(slow), method(slow)]
    await asyncio.sleep(1)
    callers[0].cancel()
    await asyncio.sleep(1)
    callers[1].cancel()
    await asyncio.sleep(1)
    assert [2.0] == ended
    assert (0, 2) == (slow.batch_stats.running, slow.batch_stats.cancelled_items)


async def test_who_left_at_the_last_moment_does_not_count_for_the_running_batch():
    """A caller that was dropped at the departure does not make a batch look abandoned by the one that stayed."""
    echo, _ = recorder(seconds=1)
    gone, stays = asyncio.ensure_future(echo(1)), asyncio.ensure_future(echo(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert 2 == await stays


async def test_who_was_answered_by_another_does_not_count_for_the_running_batch():
    """A future that its owner answered before the departure is dropped: the batch ends when the other caller leaves."""
    ended = asyncio.Event()

    @microbatch
    async def slow(items):
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        return items

    answered, leaves = slow.submit(1), slow.submit(2)
    answered.set_result("by its owner")
    await asyncio.sleep(1)
    leaves.cancel()
    await asyncio.wait_for(ended.wait(), 1)
    assert (0, 2) == (slow.batch_stats.running, slow.batch_stats.cancelled_items)


async def test_a_batch_task_cancelled_before_its_first_step_answers_its_callers():
    """Whoever cancels all tasks of the loop gets no hanging caller from it."""
    echo, _ = recorder()
    caller = echo.submit(1)
    before = asyncio.all_tasks()
    asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in asyncio.all_tasks() - before])
    with pytest.raises(BatchAbortedError):
        await caller


def test_a_loop_closed_while_a_batch_runs():
    """What ran on a loop that was closed counts as cancelled; the rest of it is torn down in silence."""
    echo, _ = recorder(seconds=60)
    loop = VirtualLoop()
    caller = loop.create_task(echo(1))
    loop.run_until_complete(asyncio.sleep(1))
    waiting = echo(2)
    loop.call_soon(waiting.send, None)
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    waiting.close()
    assert (0, 0, 2) == (
        echo.batch_stats.pending,
        echo.batch_stats.running,
        echo.batch_stats.cancelled_items,
    )
    caller._log_destroy_pending = False
    del caller, loop, echo
    gc.collect()


async def test_a_task_that_is_over_when_it_is_made():
    """A task factory may run a batch at once, as the eager one of Python 3.12 does."""
    echo, _ = recorder()
    plain = microbatch(BatchedAtOnce())
    loop = asyncio.get_running_loop()
    first, second = plain.submit(1), plain.submit(2)
    loop.set_task_factory(at_once)
    assert [1, 2] == [await first, await second]
    loop.set_task_factory(None)
    assert 3 == await echo(3)


async def test_a_task_factory_that_fails_when_the_batch_is_over():
    """Callers keep the answers they have when the loop fails to make a task for what was run already."""
    echo = microbatch(BatchedAtOnce(), max_size=2)
    loop = asyncio.get_running_loop()

    def fail(loop, coroutine, **kwargs):
        at_once(loop, coroutine)
        raise MemoryError

    callers = [echo.submit(1)]
    loop.set_task_factory(fail)
    callers.append(echo.submit(2))
    loop.set_task_factory(None)
    assert [1, 2] == [await caller for caller in callers]


async def test_a_caller_that_is_torn_down_by_the_first_step_of_its_batch(caplog):
    """A batch that runs at once may be what ends its only caller; it goes on, and the call counts as left."""
    over = asyncio.Event()

    @microbatch
    async def echo(items):
        call.close()
        over.set()
        return items

    loop = asyncio.get_running_loop()
    call = echo(1)
    call.send(None)
    loop.set_task_factory(at_once)
    await over.wait()
    loop.set_task_factory(None)
    assert (1, 0, []) == (echo.batch_stats.cancelled_items, echo.batch_stats.running, caplog.records)


def test_a_batch_that_ends_the_loop_when_it_is_made():
    """What ends the loop is raised out of it, and not into the call that filled the batch; callers are answered."""
    loop = VirtualLoop()
    callers = []

    @microbatch(max_size=2)
    async def leave(items):
        raise SystemExit(3)

    async def main():
        loop.set_task_factory(at_once)
        callers.extend([leave.submit(1), leave.submit(2)])
        await asyncio.wait(callers)

    with pytest.raises(SystemExit):
        loop.run_until_complete(main())
    assert [BatchAbortedError] * 2 == [type(caller.exception()) for caller in callers]
    loop.set_task_factory(None)
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))
    loop.close()


class Interruptible(asyncio.Future):
    """A future; who is about to be given a 2 is interrupted, as Ctrl-C may do while callers are told."""

    def set_result(self, result):
        if result == 2:
            raise KeyboardInterrupt
        super().set_result(result)


@pytest.mark.parametrize("isolate", [False, True], ids=["whole", "in halves"])
def test_an_interrupt_while_callers_are_told(isolate, caplog):
    """Who has an answer keeps it, the others are told, the loop sees the interrupt, and all goes on."""
    loop = VirtualLoop()
    loop.create_future = lambda: Interruptible(loop=loop)

    @microbatch(max_size=3, isolate_errors=isolate)
    async def echo(items):
        if isolate and len(items) == 3:
            raise KeyError
        return items

    async def call(*items):
        return await asyncio.gather(*map(echo, items), return_exceptions=True)

    called = loop.create_task(call(1, 2, 3))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(called)
    first, *others = loop.run_until_complete(called)
    assert (1, [BatchAbortedError] * 2) == (first, list(map(type, others)))
    assert [4] == loop.run_until_complete(call(4))
    stats = echo.batch_stats
    assert (4, 0, 0, []) == (stats.total_items, stats.pending, stats.running, caplog.records)
    loop.close()


def test_an_interrupt_in_a_task_that_is_over_when_it_is_made():
    """The same is true of a batch that runs at once, inside the call that filled it."""
    loop = VirtualLoop()
    loop.create_future = lambda: Interruptible(loop=loop)
    echo = microbatch(BatchedAtOnce(), max_size=3)
    callers = []

    async def main():
        loop.set_task_factory(at_once)
        callers.extend(map(echo.submit, (1, 2, 3)))
        loop.set_task_factory(None)
        await asyncio.wait(callers)

    called = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(called)
    loop.run_until_complete(called)
    assert [type(None), BatchAbortedError, BatchAbortedError] == [type(caller.exception()) for caller in callers]
    assert (0, 0) == (echo.batch_stats.pending, echo.batch_stats.running)
    loop.close()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
async def test_eager_tasks():
    """With the eager task factory calls are answered, and those of one iteration travel together."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    echo, batches = recorder()
    assert list(range(40)) == await asyncio.gather(*map(echo, range(40)))
    assert [32, 8] == [len(items) for _, items in batches]


def test_a_loop_closed_while_half_of_a_batch_runs():
    """Who was answered by the other half stays so, and who was not counts as one that left."""
    loop = VirtualLoop()

    @microbatch(max_size=3, isolate_errors=True)
    async def echo(items):
        if len(items) == 3:
            raise KeyError
        if 1 not in items:
            await asyncio.sleep(3600)
        return items

    async def main():
        callers = [echo.submit(item) for item in (1, 2, 3)]
        return await callers[0]

    assert 1 == loop.run_until_complete(main())
    loop.close()
    stats = echo.batch_stats
    assert (0, 1, 2, 3) == (stats.running, stats.answered_items, stats.cancelled_items, stats.total_items)


def test_a_loop_closed_before_the_first_step_of_a_batch(caplog):
    """A batch that has left, and whose task has not begun when its loop is closed, ends in silence."""
    echo, batches = recorder()
    loop = VirtualLoop()

    def last(echo, stop):
        echo.submit(1)
        # The batch leaves in the next iteration, and that is the last one.
        asyncio.get_running_loop().call_soon(stop)

    loop.call_soon(last, echo, loop.stop)
    loop.run_forever()
    assert 1 == echo.batch_stats.running
    loop.close()
    # Were it still there when its loop is forgotten, it would be closed with that.
    del echo
    del loop
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gc.collect()
    assert ([], [], []) == (batches, [str(each.message) for each in told], caplog.records)


def test_futures_that_nobody_reads_end_with_their_loop_in_silence(caplog):
    """When a loop ends while a batch runs, nothing is logged of futures that nobody reads any more."""
    echo, _ = recorder(seconds=60)
    unread = []

    async def leave():
        unread.append(echo.submit(1))
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    unread.clear()
    gc.collect()
    assert [] == caplog.records


def test_a_loop_may_be_forgotten_twice():
    """Two threads that find the same loop closed do not count its items twice."""
    batcher = AsyncMicrobatcher(BatchedAtOnce())
    loop = VirtualLoop()
    loop.run_until_complete(batcher.submit(1))
    batcher._forget(weakref.ref(loop))
    batcher._forget(weakref.ref(loop))
    loop.close()
    assert 1 == batcher.stats.total_items


async def test_a_flush_while_batches_are_started():
    """A flush from inside of the loop's own task factory changes nothing for the batch that is being started."""
    echo, batches = recorder(max_size=1)
    loop = asyncio.get_running_loop()
    callers = [echo.submit(1), echo.submit(2)]

    def flush(loop, coroutine, **kwargs):
        echo.flush()
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(flush)
    assert [1, 2] == [await caller for caller in callers]
    loop.set_task_factory(None)
    assert [[1], [2]] == [items for _, items in batches]


async def test_a_task_factory_that_fails_answers_the_callers():
    """When the loop cannot make a task, callers get that error, and the next call works."""
    echo, _ = recorder()
    loop = asyncio.get_running_loop()
    caller = echo.submit(1)

    def fail(loop, coroutine, **kwargs):
        message = "no task"
        raise MemoryError(message)

    loop.set_task_factory(fail)
    with pytest.raises(MemoryError, match="no task"):
        await caller
    loop.set_task_factory(None)
    assert 2 == await echo(2)


async def test_batches_run_in_a_neutral_context():
    """Nothing of the context of a caller is visible in a batch."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    @microbatch
    async def look(items):
        seen.append(tenant.get())
        tenant.set("batch")
        return items

    tenant.set("caller")
    await look(1)
    await look(2)
    assert ["nobody", "nobody"] == seen


def test_a_second_loop_works():
    """``asyncio.run`` twice on the same function works, and the numbers go on."""
    echo, _ = recorder()
    assert [1, 2] == [asyncio.run(echo(n)) for n in (1, 2)]
    assert 2 == echo.batch_stats.total_items


def test_loops_in_several_threads_have_lines_of_their_own():
    """Loops that run at the same time do not share batches, and each answers its own callers."""
    echo, batches = recorder(timeout=0.01)
    results = {}

    def run(base):
        async def main():
            return await asyncio.gather(*[echo(base + n) for n in range(20)])

        results[base] = asyncio.run(main())

    threads = [threading.Thread(target=run, args=(base,)) for base in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {base: list(range(base, base + 20)) for base in range(0, 400, 100)} == results
    assert all(len({item // 100 for item in items}) == 1 for _, items in batches)
    assert 80 == echo.batch_stats.total_items


def test_an_idle_engine_is_gone_with_its_loop():
    """A loop that has ended is not kept alive by the functions that were called on it."""
    echo, _ = recorder()
    loop = VirtualLoop()
    loop.run_until_complete(echo(1))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    assert 1 == echo.batch_stats.total_items


def test_a_loop_closed_with_items_waiting_is_forgotten():
    """Items that waited on a loop that was closed count as cancelled, and the function works on the next loop."""
    echo, batches = recorder(timeout=60)
    loop = VirtualLoop()

    async def leave():
        echo.submit(1)

    loop.run_until_complete(leave())
    assert 1 == echo.batch_stats.pending
    loop.close()
    assert (0, 1) == (echo.batch_stats.pending, echo.batch_stats.cancelled_items)
    loop = VirtualLoop()
    assert 2 == loop.run_until_complete(echo(2))
    loop.close()
    assert [[2]] == [items for _, items in batches]


def test_a_call_counts_at_any_moment_of_the_end_of_its_loop(monkeypatch):
    """Who looks at the numbers while those of an ended loop are settled finds each call once."""
    echo, _ = recorder(timeout=60)
    loop = VirtualLoop()
    loop.call_soon(lambda: [echo.submit(1), echo.submit(2)])
    loop.run_until_complete(asyncio.sleep(0))
    seen = []
    abandon = AsyncEngine.abandon

    def look(engine):
        seen.append(echo.batch_stats.pending)
        abandon(engine)

    monkeypatch.setattr(AsyncEngine, "abandon", look)
    loop.close()
    assert (2, [2]) == (echo.batch_stats.cancelled_items, seen)


def test_a_batcher_that_is_dropped_needs_no_collector():
    """With its last reference a batcher is gone, whatever loops it was used on."""
    echo, _ = recorder()
    loop = VirtualLoop()
    assert 1 == loop.run_until_complete(echo(1))
    (batcher,) = echo._self_batchers()
    dead = weakref.ref(batcher)
    # Who holds these may outlive the batcher, and is told nothing by the end of the loop.
    keys = list(batcher._engines)
    gc.disable()
    try:
        del batcher
        del echo
        assert dead() is None
    finally:
        gc.enable()
    loop.close()
    del loop
    gc.collect()
    assert [None] == [key() for key in keys]


async def test_close_on_a_busy_loop_says_what_to_do():
    """``close()`` would block the loop that has to run the batches, and says so; ``aclose()`` works."""
    echo, _ = recorder(timeout=1, name="echo")
    waiting = echo.submit(1)
    with pytest.raises(RuntimeError) as caught:
        echo.close()
    told = "echo.close() would block the event loop that has to run its batches; use: await aclose()"
    assert told == str(caught.value)
    assert 2 == (await asyncio.gather(echo(2), echo.aclose()))[0]
    assert waiting.done()


async def test_aclose_waits_for_all_that_was_taken(moment):
    """``aclose()`` returns when what waited and what ran is answered, however many wait for it."""
    echo, _ = recorder(moment, seconds=1)
    callers = [echo.submit(1)]
    await asyncio.sleep(0.5)
    callers.append(echo.submit(2))
    await asyncio.gather(echo.aclose(), echo.aclose())
    assert (True, 2.0) == (all(caller.done() for caller in callers), moment())


async def test_aclose_from_another_loop():
    """A function may be closed from a loop that never called it, while another loop waits for its answers."""
    echo, _ = recorder(timeout=3600)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    caller = asyncio.run_coroutine_threadsafe(echo(1), other)
    wait_until(lambda: echo.batch_stats.pending)
    await echo.aclose()
    assert 1 == caller.result(1)
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()


async def test_a_flush_reaches_other_loops():
    """``flush()`` lets what waits on other loops leave too."""
    echo, _ = recorder(timeout=3600)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    caller = asyncio.run_coroutine_threadsafe(echo(1), other)
    wait_until(lambda: echo.batch_stats.pending)
    mine = echo.submit(2)
    echo.flush()
    assert (1, 2) == (caller.result(1), await mine)
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()


class TestAsyncMicrobatcher:
    """The engine as a class."""

    async def test_submit(self):
        """``submit`` awaits the result for one item, ``submit_many`` for several."""

        async def echo(items):
            return items

        async with AsyncMicrobatcher(echo) as batcher:
            assert 1 == await batcher.submit(1)
            assert [2, 3] == await batcher.submit_many([2, 3])
        assert ("echo", 3) == (batcher.stats.name.rpartition(".")[2], batcher.stats.total_items)

    async def test_the_default_window_is_two_milliseconds(self, moment):
        """Without options a batch waits 2 ms at most."""

        async def when(items):
            return [moment()] * len(items)

        assert 0.002 == await AsyncMicrobatcher(when).submit(1)

    async def test_starting_and_stopping(self):
        """The first ``submit`` starts it, ``stop()`` ends it, ``start()`` opens it again."""

        async def echo(items):
            return items

        batcher = AsyncMicrobatcher(echo, name="echo")
        assert not batcher.is_running
        assert 1 == await batcher.submit(1)
        assert batcher.is_running
        await batcher.stop()
        await batcher.stop()
        assert not batcher.is_running
        with pytest.raises(BatcherClosedError, match="echo is closed and takes no more calls"):
            await batcher.submit(2)
        await batcher.start()
        assert 3 == await batcher.submit(3)

    async def test_a_plain_function_runs_off_the_loop(self):
        """A ``def`` function runs in one thread of its own, and the loop stays free."""
        threads = set()

        def where(items):
            threads.add(threading.current_thread())
            return items

        async with AsyncMicrobatcher(where, 1) as batcher:
            assert [1, 2, 3] == await batcher.submit_many([1, 2, 3])
        assert 1 == len(threads)
        assert threading.current_thread() not in threads

    async def test_stopping_before_any_call(self):
        """A batcher that was never used stops as well."""
        batcher = AsyncMicrobatcher(lambda items: items)
        await batcher.stop()
        assert not batcher.is_running

    async def test_its_repr_shows_its_state(self):
        """``repr`` shows the name, whether it is open, and how much there is to do."""

        async def echo(items):
            return items

        batcher = AsyncMicrobatcher(echo, name="echo")
        assert "<AsyncMicrobatcher echo: open, 0 pending, 0 running>" == repr(batcher)
        await batcher.stop()
        assert "<AsyncMicrobatcher echo: closed, 0 pending, 0 running>" == repr(batcher)


async def test_close_all_closes_what_it_can():
    """A batcher that cannot be closed from its own loop keeps no other one open."""
    answer = asyncio.Event()

    @microbatch
    async def busy(items):
        await answer.wait()
        return items

    waiting = busy.submit(1)
    other = microbatch(lambda items: items)
    await other.acall(1)
    with pytest.raises(RuntimeError, match="would block the event loop"):
        batchify.close_all()
    with pytest.raises(BatcherClosedError):
        await other.acall(2)
    answer.set()
    await batchify.aclose_all()
    assert 1 == await waiting
    with pytest.raises(BatcherClosedError):
        await busy(2)


def test_a_batch_in_a_thread_that_meets_the_end_of_its_pool(monkeypatch):
    """A batch of a plain function is answered from the batcher's own threads though the pool is closed as it begins."""

    def where(items):
        return [threading.current_thread().name for item in items]

    batcher = AsyncMicrobatcher(where, name="own")
    copied = contextvars.copy_context

    def closing():
        monkeypatch.undo()
        (engine,) = batcher._engines.values()
        engine.source.close()
        return copied()

    monkeypatch.setattr("batchify._asyncio.offload.copy_context", closing)

    async def main():
        answer = await batcher.submit(1)
        await batcher.stop()
        return answer

    assert asyncio.run(main()).startswith("own")
