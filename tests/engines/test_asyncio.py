"""The asyncio engine, in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import sys
import threading
import warnings
import weakref
from contextlib import asynccontextmanager

import pytest

import batchify
from batchify import AsyncMicrobatcher, BatchAbortedError, BatcherClosedError, DeadlineError, microbatch
from batchify._asyncio.engine import AsyncEngine, BatchTask
from batchify._batcher.line import Line
from batchify.testing import VirtualLoop
from batchify.testing.virtual_time import closing_loop
from tests.kit.engines import wait_until
from tests.kit.steps import interrupted as interrupted_at_steps


def recorder(moment=lambda: None, seconds=0.0, **options):
    """Return a decorated echo function that takes ``seconds``, and the list of its batches with their start times."""
    batches = []

    @microbatch(**options)
    async def echo(items):
        batches.append((moment(), list(items)))
        await asyncio.sleep(seconds)
        return items

    return echo, batches


async def test_items_within_a_window_share_a_batch(moment):
    """With a window of 50 ms, items that arrive 10 ms apart leave together, 50 ms after the first."""
    echo, batches = recorder(moment, timeout=0.05)
    calls = []
    for n in range(4):
        calls.append(asyncio.ensure_future(echo(n)))
        await asyncio.sleep(0.01)
    assert [0, 1, 2, 3] == await asyncio.gather(*calls)
    assert [(0.05, [0, 1, 2, 3])] == batches
    assert 1 == echo.batch_stats.reasons["timeout"]


async def test_later_arrivals_do_not_extend_the_window(moment):
    """An item that arrives at the last moment leaves with the first one, at the end of the first one's window."""
    echo, batches = recorder(moment, timeout=0.05)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.049)
    await asyncio.gather(first, echo(2))
    assert [(0.05, [1, 2])] == batches


async def test_the_window_of_a_left_over_item_begins_at_its_arrival(moment):
    """After a full batch has left, the window of the next item counts from its own arrival."""
    echo, batches = recorder(moment, timeout=0.05, max_size=2)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.03)
    await asyncio.gather(first, echo(2), echo(3))
    assert [(0.03, [1, 2]), (0.08, [3])] == batches


async def test_a_drain_ends_with_the_last_call_that_it_waits_for(moment):
    """If that caller leaves just as a later call departs, the drain does not wait for the later call."""
    echo, batches = recorder(moment, seconds=1, max_size=1)

    async def call_and_cancel_next():
        await echo(1)
        second.cancel()

    calls = [asyncio.ensure_future(call_and_cancel_next())]
    await asyncio.sleep(0.25)
    calls.append(second := asyncio.ensure_future(echo(2)))
    await asyncio.sleep(0.25)
    drained = asyncio.ensure_future(echo.adrain())
    await asyncio.sleep(0.25)
    calls.append(asyncio.ensure_future(echo(3)))
    await drained
    assert 1 == moment()
    await asyncio.wait(calls)
    assert [[1], [3]] == [items for _, items in batches]


async def test_time_spent_waiting_for_a_slot_counts(moment):
    """An item whose window ended while the function was busy leaves as soon as the slot is free."""
    echo, batches = recorder(moment, seconds=1, timeout=0.05)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0.5)
    await asyncio.gather(first, echo(2))
    assert [(0.05, [1]), (1.05, [2])] == batches
    assert (1, 1) == (echo.batch_stats.reasons["timeout"], echo.batch_stats.reasons["slot"])


async def test_a_window_of_zero_collects_one_loop_iteration(moment):
    """With ``timeout=0``, calls of one loop iteration share a batch, which does not wait."""
    echo, batches = recorder(moment, timeout=0)
    await asyncio.gather(*map(echo, range(5)))
    assert [(0.0, [0, 1, 2, 3, 4])] == batches


async def test_a_lone_call_does_not_wait(moment):
    """With adaptive timing, an item leaves at once if no batch is running."""
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


async def test_items_queue_while_a_batch_runs(moment):
    """With adaptive timing, items that arrive while a batch runs leave when it ends."""
    echo, batches = recorder(moment, seconds=1)
    calls = [asyncio.ensure_future(echo(1))]
    for n in (2, 3):
        await asyncio.sleep(0.25)
        calls.append(asyncio.ensure_future(echo(n)))
    await asyncio.gather(*calls)
    assert [(0.0, [1]), (1.0, [2, 3])] == batches
    assert 1 == echo.batch_stats.reasons["slot"]


async def test_answered_callers_can_call_again_before_the_next_batch(moment):
    """Callers that call again at once do not split into two groups that take turns."""
    echo, batches = recorder(moment, seconds=1)

    async def client(n):
        for _ in range(3):
            await echo(n)

    late = asyncio.ensure_future(client(1))
    await asyncio.sleep(0.5)
    await asyncio.gather(late, client(2))
    assert [(0.0, [1]), (1.0, [2, 1]), (2.0, [2, 1]), (3.0, [2])] == batches


async def test_departures_are_spaced_with_several_slots(moment):
    """With adaptive timing and two slots, departures are half a run time apart."""
    echo, batches = recorder(moment, seconds=1, concurrency=2)
    await echo(0)
    calls = []
    for n in range(1, 5):
        calls.append(asyncio.ensure_future(echo(n)))
        await asyncio.sleep(0.125)
    await asyncio.gather(*calls)
    assert [(0.0, [0]), (1.0, [1]), (1.5, [2, 3, 4])] == batches


async def test_an_idle_batcher_does_not_wake_the_loop():
    """The clock passes a second without calls in one leap."""
    echo, _ = recorder(timeout=0.05)
    await echo(1)
    loop = asyncio.get_running_loop()
    before = loop.leaps
    await asyncio.sleep(1)
    assert 1 == loop.leaps - before


async def test_a_full_batch_leaves_no_timer_behind():
    """When a full batch leaves before its window ends, its timer does not wake the loop."""
    echo, _ = recorder(timeout=0.05, max_size=2)
    await asyncio.gather(echo(1), echo(2))
    loop = asyncio.get_running_loop()
    before = loop.leaps
    await asyncio.sleep(1)
    assert 1 == loop.leaps - before


async def test_a_caller_cancelled_in_the_iteration_of_the_departure_is_not_run():
    """The item of a caller that is cancelled just before its batch leaves is not run."""
    echo, batches = recorder(timeout=0.05)
    gone, stays = asyncio.ensure_future(echo(1)), asyncio.ensure_future(echo(2))
    asyncio.get_running_loop().call_at(0.05, gone.cancel)
    await asyncio.sleep(0)
    assert 2 == await stays
    assert [[2]] == [items for _, items in batches]
    assert 1 == echo.batch_stats.cancelled_items


async def test_a_batch_whose_callers_all_left_at_the_last_moment_is_not_run():
    """When all callers are cancelled just before their batch leaves, the batch function is not called."""
    echo, batches = recorder()
    gone = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(1)
    assert [] == batches
    assert 2 == await echo(2)


@pytest.mark.parametrize("method", [lambda fn: asyncio.ensure_future(fn(1)), lambda fn: fn.submit(1)])
async def test_a_batch_without_callers_is_cancelled(moment, method):
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


async def test_a_caller_that_left_at_the_last_moment_does_not_count_for_the_running_batch():
    """A caller that is dropped at the departure does not make the batch look abandoned while another caller waits."""
    echo, _ = recorder(seconds=1)
    gone, stays = asyncio.ensure_future(echo(1)), asyncio.ensure_future(echo(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert 2 == await stays


async def test_a_future_answered_by_its_owner_does_not_count_for_the_running_batch():
    """A future that its owner answers before the departure is dropped: the batch ends when the other caller leaves."""
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
    """When all tasks of the loop are cancelled, the callers of a batch that has not begun get an error."""
    echo, _ = recorder()
    before = asyncio.all_tasks()
    caller = echo.submit(1)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    with pytest.raises(BatchAbortedError):
        await caller
    assert 2 == await echo(2)


async def test_a_caller_that_leaves_at_its_deadline():
    """A caller that is cancelled in the loop iteration of its deadline is cancelled, and the next one is answered."""
    echo, batches = recorder(seconds=60, max_size=1)
    first = echo.submit(1)
    late = asyncio.ensure_future(echo.options(deadline=1)(2))
    # The timer of the deadline is set later.
    asyncio.get_running_loop().call_later(1, late.cancel)
    await asyncio.sleep(2)
    assert late.cancelled()
    assert [1, 3] == [await first, await echo(3)]
    assert [[1], [3]] == [items for _, items in batches]


async def test_an_overdue_item_does_not_leave_in_the_batch_that_a_late_call_fills():
    """If a loop was blocked until after a deadline, a call that then fills the batch does not run the overdue item."""
    echo, batches = recorder(max_size=2, timeout=3600)
    late = echo.options(deadline=1).submit(1)
    engine = late.engine
    now = engine.clock() + 5
    engine.clock = lambda: now
    others = [echo.options(deadline=3600).submit(item) for item in (2, 3)]
    with pytest.raises(DeadlineError):
        await late
    assert [2, 3] == await asyncio.gather(*others)
    assert [[2, 3]] == [items for _, items in batches]


async def test_a_caller_that_leaves_a_batch_with_an_exception_as_result():
    """Of a batch with an exception as a result, a caller that has left gets nothing, and counts as cancelled."""

    @microbatch
    async def fail(items):
        await asyncio.sleep(1)
        return [ValueError(item) for item in items]

    gone, stays = fail.submit(1), fail.submit(2)
    await asyncio.sleep(0.5)
    gone.cancel()
    with pytest.raises(ValueError, match="2"):
        await stays
    assert (1, 1) == (fail.batch_stats.failed_items, fail.batch_stats.cancelled_items)


async def test_options_that_change_while_a_call_finds_its_engine(monkeypatch):
    """A call that found its batcher without priorities is answered, although another thread just changed that."""
    echo, _ = recorder()
    find = AsyncMicrobatcher._active_engine

    def change_and_find(batcher, loop):
        monkeypatch.undo()
        batcher._change({"takes_requests": True})
        return find(batcher, loop)

    monkeypatch.setattr(AsyncMicrobatcher, "_active_engine", change_and_find)
    assert 1 == await echo(1)


def test_a_loop_closed_while_a_batch_runs():
    """Calls that run or wait on a closed loop count as cancelled, and their coroutines are torn down without a log."""
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


def interrupted_set_result(future, result):
    """Set a result, unless it is 2: then raise as Ctrl-C may do while callers are answered."""
    if result == 2:
        raise KeyboardInterrupt
    future.set_result(result)


@pytest.mark.parametrize("isolate", [False, True], ids=["whole", "in halves"])
def test_an_interrupt_while_callers_are_answered(isolate, caplog, monkeypatch):
    """An answered caller keeps its answer, the others get an error, the loop raises, and the next call works."""
    loop = VirtualLoop()
    monkeypatch.setattr("batchify._asyncio.engine.set_result", interrupted_set_result)

    @microbatch(max_size=3, isolate_errors=isolate)
    async def echo(items):
        if isolate and len(items) == 3:
            raise KeyError
        return items

    async def call(*items):
        return await asyncio.gather(*map(echo.submit, items), return_exceptions=True)

    called = loop.create_task(call(1, 2, 3))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(called)
    first, *others = loop.run_until_complete(called)
    assert (1, [BatchAbortedError] * 2) == (first, list(map(type, others)))
    assert [4] == loop.run_until_complete(call(4))
    stats = echo.batch_stats
    assert (4, 0, 0, []) == (stats.total_items, stats.pending, stats.running, caplog.records)
    loop.close()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
async def test_eager_tasks():
    """With the eager task factory, calls are answered, and calls of one loop iteration share batches."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    echo, batches = recorder()
    assert list(range(40)) == await asyncio.gather(*map(echo, range(40)))
    assert [32, 8] == [len(items) for _, items in batches]


async def test_a_task_factory_does_not_affect_batches(moment):
    """A task factory that awaits each coroutine inside another one, as Sentry's does, gets no coroutine of a batch."""
    echo, batches = recorder(moment)
    names = []

    async def wrapped(coroutine):
        names.append(coroutine.__name__)
        await asyncio.sleep(1)
        return await coroutine

    def factory(loop, coroutine, **kwargs):
        return asyncio.Task(wrapped(coroutine), loop=loop, **kwargs)

    asyncio.get_running_loop().set_task_factory(factory)
    assert ([1, 2], 3) == (await asyncio.gather(echo(1), echo(2)), await echo.submit(3))
    assert [(1.0, [1, 2]), (1.0, [3])] == batches
    assert ["submit", "submit"] == names


def test_a_loop_that_ends_and_goes_on():
    """A loop that cancels its tasks while it stands still aborts the calls that wait, and then takes calls again."""
    echo, batches = recorder(seconds=1, max_pending=1)
    loop = VirtualLoop()

    async def begin():
        first = echo.submit(1)
        await asyncio.sleep(0)
        calls = first, echo.submit(2), asyncio.ensure_future(echo(3))
        await asyncio.sleep(0)
        return calls

    async def end(futures):
        return await asyncio.gather(*futures, return_exceptions=True), await echo(4)

    futures = loop.run_until_complete(begin())
    futures[2].cancel()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    aborted, answer = loop.run_until_complete(end(futures))
    assert ([BatchAbortedError] * 2 + [asyncio.CancelledError], 4) == ([*map(type, aborted)], answer)
    assert [[1], [4]] == [items for _, items in batches]
    stats = echo.batch_stats
    assert (1, 3, 0) == (stats.answered_items, stats.failed_items, stats.cancelled_items)
    loop.close()


@pytest.mark.parametrize("view", [{}, {"priority": 1}])
async def test_an_exception_in_a_coroutine_that_no_task_drives(view):
    """An exception that is thrown into a waiting call takes its item from the queue."""
    echo, batches = recorder(timeout=5)
    call = echo.options(**view)(1)
    call.send(None)
    with pytest.raises(ZeroDivisionError):
        call.throw(ZeroDivisionError())
    await asyncio.sleep(9)
    assert ([], 0, 1) == (batches, echo.batch_stats.pending, echo.batch_stats.cancelled_items)


async def test_calls_that_share_an_item_count_as_pending_one_by_one():
    """With ``dedupe`` and ``max_pending``, each caller takes room, also one that shares a queued item."""
    echo, batches = recorder(seconds=1, dedupe=True, max_pending=2, on_full="raise")
    first = echo.submit(0)
    await asyncio.sleep(0)
    calls = [echo.submit(1), echo.submit(1)]
    with pytest.raises(batchify.QueueFullError):
        echo.submit(1)
    assert [0, 1, 1] == await asyncio.gather(first, *calls)
    assert [[0], [1]] == [items for _, items in batches]


def fail_at(number, do):
    """Call ``do()`` with a ``RecursionError`` in place of one of its calls of functions of the package."""
    calls = itertools.count()

    def trace(frame, event, _):
        # The end of a generator is no call.
        is_call = not frame.f_code.co_flags & inspect.CO_GENERATOR
        if is_call and frame.f_globals.get("__name__", "").startswith("batchify.") and next(calls) == number:
            raise RecursionError

    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(None)


@pytest.mark.untraced
def test_the_limit_of_recursion():
    """A first call that fails anywhere, as at the limit of recursion, does not disturb later calls."""
    loop = VirtualLoop()

    async def fail_and_call_again(number):
        echo, _ = recorder()
        call = echo(1)
        try:
            fail_at(number, lambda: call.send(None))
        except RecursionError:
            return await echo(2)
        finally:
            call.close()

    answers = list(itertools.takewhile(bool, (loop.run_until_complete(fail_and_call_again(n)) for n in range(100))))
    assert 20 < len(answers) < 100
    loop.close()


@pytest.mark.untraced
@pytest.mark.parametrize("leaves", [False, True])
def test_the_limit_of_recursion_among_waiting_calls(leaves):
    """A call, or the departure of one, that fails anywhere in the middle does not disturb the calls that wait."""
    loop = VirtualLoop()

    async def fail_among_others(number):
        echo, _ = recorder(timeout=5, dedupe=True, max_pending=4)
        waiting = [echo.options(priority=item, deadline=100 - item).submit(item) for item in range(3)]
        leaving = waiting.pop() if leaves else None
        urgent = echo.options(priority=9, deadline=50)
        try:
            fail_at(number, (lambda: leaving.cancel()) if leaves else (lambda: urgent.submit(9)))
        except RecursionError:
            assert [*range(len(waiting)), 4] == await asyncio.gather(*waiting, urgent(4))
            stats = echo.batch_stats
            assert (0, 0) == (stats.pending, stats.running)
            return True
        return False

    steps = list(itertools.takewhile(bool, (loop.run_until_complete(fail_among_others(n)) for n in range(200))))
    assert 5 < len(steps) < 200
    loop.close()


@pytest.mark.parametrize("step", ["add", "leave"])
async def test_an_interrupted_call(step, monkeypatch):
    """A call that an exception interrupts, as of a signal handler, disturbs neither waiting nor running calls."""
    echo, batches = recorder(seconds=1, dedupe=True, concurrency=2, timeout=5)
    running = echo.submit(0)
    echo.flush()
    await asyncio.sleep(0.5)
    waiting, leaving = echo.submit(1), echo.submit(2)
    real = getattr(Line, step)

    def interrupted(line, *arguments):
        monkeypatch.undo()
        real(line, *arguments)
        raise MemoryError

    monkeypatch.setattr(Line, step, interrupted)
    with pytest.raises(MemoryError):
        await echo.submit(3) if step == "add" else leaving.cancel()
    leaving.cancel()
    assert [0, 1] == await asyncio.gather(running, waiting)
    assert 0 == echo.batch_stats.pending
    assert [0] == batches[0][1]


async def test_a_departure_just_after_an_interrupted_call(monkeypatch):
    """A batch departs in the loop iteration of an exception, as of a signal handler, without the caller that left."""
    echo, batches = recorder(dedupe=True, timeout=0)
    first, leaving = echo.submit(1), echo.submit(2)
    leave = Line.leave

    def interrupted(line, *arguments):
        monkeypatch.undo()
        leave(line, *arguments)
        raise MemoryError

    monkeypatch.setattr(Line, "leave", interrupted)
    with pytest.raises(MemoryError):
        leaving.cancel()
    assert 1 == await first
    assert [[1]] == [items for _, items in batches]


@pytest.mark.parametrize("options", [{}, {"dedupe": True}])
async def test_an_interrupted_departure(options, monkeypatch, caplog):
    """A batch that has departed before an exception, as of a signal handler, still runs."""
    echo, batches = recorder(**options)
    take = Line.take

    def interrupted(line, now):
        monkeypatch.undo()
        take(line, now)
        raise MemoryError

    monkeypatch.setattr(Line, "take", interrupted)
    assert [1, 2] == await asyncio.gather(echo(1), echo(2))
    assert [[1, 2]] == [items for _, items in batches]
    gc.collect()
    assert [MemoryError] == [record.exc_info[0] for record in caplog.records]


@pytest.mark.parametrize("step", ["_batcher.line.Line.expire", "_asyncio.engine.BatchTask"])
async def test_an_interrupted_timer(step, monkeypatch, caplog):
    """A batch whose window has ended just before an exception, as of a signal handler, still runs."""
    echo, batches = recorder(timeout=1)

    def interrupted(*_, **__):
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(f"batchify.{step}", interrupted)
    assert [1, 2] == await asyncio.gather(echo(1), echo(2))
    assert [[1, 2]] == [items for _, items in batches]
    assert [MemoryError] == [record.exc_info[0] for record in caplog.records]


async def test_an_interrupt_as_a_task_is_created(monkeypatch):
    """A batch runs once if an exception, as of a signal handler, comes between the creation of its task and its use."""
    echo, batches = recorder(max_size=2, timeout=5, dedupe=True)

    class Interrupted(BatchTask):
        def __init__(self, *arguments, **options):
            monkeypatch.undo()
            super().__init__(*arguments, **options)
            raise MemoryError

    monkeypatch.setattr("batchify._asyncio.engine.BatchTask", Interrupted)
    first = asyncio.ensure_future(echo(1))
    await asyncio.sleep(0)
    with pytest.raises(MemoryError):
        await echo(2)
    assert (1, 3) == (await first, await echo(3))
    assert [[1, 2], [3]] == [items for _, items in batches]


async def test_a_task_that_cannot_be_created_in_a_callback(monkeypatch):
    """If the task of a batch cannot be created in a callback of the loop, its call fails, and the next one works."""
    echo, batches = recorder(timeout=0)

    def fail(*_, **__):
        monkeypatch.undo()
        raise MemoryError

    def submit():
        with pytest.raises(MemoryError):
            echo.submit(1)

    monkeypatch.setattr("batchify._asyncio.engine.BatchTask", fail)
    asyncio.get_running_loop().call_soon(submit)
    await asyncio.sleep(1)
    assert 2 == await echo.submit(2)
    assert [[2]] == [items for _, items in batches]


async def test_an_interrupted_departure_keeps_its_slot(monkeypatch, caplog):
    """A batch that another task runs after an exception has the context manager of its slot, and not a new one."""
    entered = []

    @asynccontextmanager
    async def lifespan():
        entered.append("state")
        yield

    echo, batches = recorder(lifespan=lifespan, dedupe=True)
    start_or_schedule = AsyncEngine.start_or_schedule

    def interrupted(engine):
        if engine.line.queue.running:
            monkeypatch.undo()
            raise MemoryError
        start_or_schedule(engine)

    assert 0 == await echo(0)
    monkeypatch.setattr(AsyncEngine, "start_or_schedule", interrupted)
    assert 1 == await echo(1)
    assert ([[0], [1]], ["state"]) == ([items for _, items in batches], entered)
    gc.collect()
    assert [MemoryError] == [record.exc_info[0] for record in caplog.records]


@pytest.mark.untraced
async def test_options_that_another_thread_changes_as_a_call_looks_up_its_engine():
    """A call has the new options or the old ones, at whichever step of the lookup they change."""
    loop = asyncio.get_running_loop()

    async def echo(items):
        return list(items)

    def new():
        batcher = AsyncMicrobatcher(echo, batch_wait_timeout_s=0)
        batcher._engine_of(loop)
        batcher._engine = None
        return batcher

    def change(batcher):
        thread = threading.Thread(target=batcher._change, args=[{"takes_requests": True}])
        thread.start()
        thread.join()

    for batcher in interrupted_at_steps(new, lambda batcher: batcher._engine_of(loop), change):
        assert [1, 2] == await asyncio.gather(batcher.submit(1), batcher.submit(2))


async def test_sentry():
    """Calls are answered on a loop that the asyncio integration of sentry-sdk instruments."""
    init = pytest.importorskip("sentry_sdk").init
    from sentry_sdk.integrations.asyncio import AsyncioIntegration

    options = {"default_integrations": False, "auto_enabling_integrations": False}
    init(dsn=None, integrations=[AsyncioIntegration()], **options)
    assert asyncio.get_running_loop().get_task_factory() is not None
    echo, batches = recorder()
    assert ([1, 2], 3) == (await asyncio.gather(echo(1), echo(2)), await echo.submit(3))
    assert [[1, 2], [3]] == [items for _, items in batches]


async def test_a_batch_that_closes_its_only_caller(caplog):
    """A batch that closes the coroutine of its only caller goes on, and the call counts as cancelled."""

    @microbatch
    async def echo(items):
        call.close()
        return items

    call = echo(1)
    call.send(None)
    await asyncio.sleep(1)
    assert (1, 0, []) == (echo.batch_stats.cancelled_items, echo.batch_stats.running, caplog.records)


async def test_a_half_that_no_caller_waits_for():
    """While an error is isolated, a half does not run if its callers left while the other half ran."""
    runs = []

    @microbatch(isolate_errors=True)
    async def fail(items):
        runs.append(list(items))
        await asyncio.sleep(1)
        raise ValueError(items)

    stays, leaves = fail.submit(1), fail.submit(2)
    await asyncio.sleep(1.5)
    leaves.cancel()
    with pytest.raises(ValueError, match="1"):
        await stays
    await fail.aclose()
    assert [[1, 2], [1]] == runs
    assert (1, 1) == (fail.batch_stats.failed_items, fail.batch_stats.cancelled_items)


def test_a_loop_closed_while_half_of_a_batch_runs():
    """The answered caller of the other half stays answered; the callers without an answer count as cancelled."""
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
    assert (0, 1, 2, 1) == (stats.running, stats.answered_items, stats.cancelled_items, stats.total_items)


def test_a_loop_closed_before_the_first_step_of_a_batch(caplog):
    """A batch whose task has not begun when its loop is closed ends without a log or a warning."""
    echo, batches = recorder()
    loop = VirtualLoop()

    def last(echo, stop):
        echo.submit(1)
        # The batch would leave in the next iteration.
        stop()

    loop.call_soon(last, echo, loop.stop)
    loop.run_forever()
    assert 1 == echo.batch_stats.pending
    loop.close()
    # Nothing may close the coroutine before it is collected.
    del echo
    del loop
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert ([], [], []) == (batches, [str(each.message) for each in caught], caplog.records)


def test_unread_futures_end_with_their_loop_without_a_log(caplog):
    """When a loop ends while a batch runs, asyncio logs nothing about futures that no caller reads."""
    echo, _ = recorder(seconds=60)
    unread = []

    async def leave():
        unread.append(echo.submit(1))
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    unread.clear()
    gc.collect()
    assert [] == caplog.records


def test_a_loop_may_be_forgotten_twice(monkeypatch):
    """When two threads find the same loop closed, its items are counted once."""
    echo, _ = recorder(timeout=60)
    loops = [VirtualLoop(), VirtualLoop()]
    for loop in loops:
        loop.call_soon(echo.submit, 1)
        loop.run_until_complete(asyncio.sleep(0))
    count_lost_calls = AsyncEngine.count_lost_calls

    def count_meanwhile(engine):
        # Another thread is faster with the second loop.
        assert 0 < echo.batch_stats.pending
        count_lost_calls(engine)

    monkeypatch.setattr(AsyncEngine, "count_lost_calls", count_meanwhile)
    for loop in loops:
        loop.close()
    assert 2 == echo.batch_stats.cancelled_items


async def test_batches_run_in_a_neutral_context():
    """No context variable of a caller is visible in a batch."""
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
    """Two calls of ``asyncio.run`` with the same function work, and its counters continue."""
    echo, _ = recorder()
    assert [1, 2] == [asyncio.run(echo(n)) for n in (1, 2)]
    assert 2 == echo.batch_stats.total_items


def test_loops_in_several_threads_have_queues_of_their_own():
    """Loops that run at the same time do not share batches, and each one answers its own callers."""
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


def test_an_idle_engine_does_not_keep_its_loop_alive():
    """A function does not keep a loop alive on which it was called."""
    echo, _ = recorder()
    loop = VirtualLoop()
    loop.run_until_complete(echo(1))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    assert 1 == echo.batch_stats.total_items


def test_a_loop_closed_while_items_wait():
    """Items that wait on a closed loop count as cancelled, and the function works on the next loop."""
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


def test_a_call_counts_once_while_its_loop_ends(monkeypatch):
    """A snapshot that is taken while the calls of a closed loop are counted as cancelled has each call once."""
    echo, _ = recorder(timeout=60)
    loop = VirtualLoop()
    loop.call_soon(lambda: [echo.submit(1), echo.submit(2)])
    loop.run_until_complete(asyncio.sleep(0))
    seen = []
    count_lost_calls = AsyncEngine.count_lost_calls

    def look(engine):
        seen.append(echo.batch_stats.pending)
        count_lost_calls(engine)

    monkeypatch.setattr(AsyncEngine, "count_lost_calls", look)
    loop.close()
    assert (2, [2]) == (echo.batch_stats.cancelled_items, seen)


def test_a_caller_that_leaves_while_its_loop_is_stopped():
    """A caller of a running batch that is cancelled between two runs of the loop does not fail the queued calls."""
    echo, _ = recorder(max_size=1, seconds=1)
    with closing_loop(VirtualLoop()) as loop:

        async def submit():
            calls = [echo.submit(item) for item in (1, 2, 3)]
            await asyncio.sleep(0.5)
            return calls

        leaving, *others = loop.run_until_complete(submit())
        leaving.cancel()
        assert [2, 3] == loop.run_until_complete(asyncio.gather(*others))


def test_a_batcher_that_is_dropped_needs_no_collector():
    """A batcher is freed with its last reference, whatever loops it was used on."""
    echo, _ = recorder()
    loop = VirtualLoop()
    assert 1 == loop.run_until_complete(echo(1))
    (batcher,) = echo._self_scope.batchers()
    dead = weakref.ref(batcher)
    # The keys may outlive the batcher, and then the end of the loop must do nothing.
    keys = list(batcher._by_loop)
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
    message = "echo.close() would block the event loop that has to run its batches; use: await aclose()"
    assert message == str(caught.value)
    assert 2 == (await asyncio.gather(echo(2), echo.aclose()))[0]
    assert waiting.done()


async def test_aclose_waits_for_all_calls(moment):
    """``aclose()`` returns when all waiting and running calls are answered, also if two tasks await it."""
    echo, _ = recorder(moment, seconds=1)
    callers = [echo.submit(1)]
    await asyncio.sleep(0.5)
    callers.append(echo.submit(2))
    await asyncio.gather(echo.aclose(), echo.aclose())
    assert (True, 2.0) == (all(caller.done() for caller in callers), moment())


async def test_aclose_from_another_loop():
    """A loop that never called a function may close it while another loop waits for its answers."""
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
    """``flush()`` starts the items that wait on other loops, too."""
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
        """Without options, a batch waits for at most 2 ms."""

        async def when(items):
            return [moment()] * len(items)

        assert 0.002 == await AsyncMicrobatcher(when).submit(1)

    async def test_starting_and_stopping(self):
        """The first ``submit`` starts a batcher, ``stop()`` stops it, and ``start()`` opens it again."""

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
        """An unused batcher can be stopped."""
        batcher = AsyncMicrobatcher(lambda items: items)
        await batcher.stop()
        assert not batcher.is_running

    async def test_its_repr_shows_its_state(self):
        """``repr`` shows the name, the state, and the numbers of waiting and running items."""

        async def echo(items):
            return items

        batcher = AsyncMicrobatcher(echo, name="echo")
        assert "<AsyncMicrobatcher echo: open, 0 pending, 0 running>" == repr(batcher)
        await batcher.stop()
        assert "<AsyncMicrobatcher echo: closed, 0 pending, 0 running>" == repr(batcher)


async def test_close_all_closes_all_other_batchers():
    """A batcher that cannot be closed on its own loop does not keep the others open."""
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


def test_a_pool_that_is_closed_while_a_batch_departs(monkeypatch):
    """A batch of a ``def`` function whose thread pool is closed at its departure runs in a new pool."""

    def where(items):
        return [threading.current_thread().name for item in items]

    batcher = AsyncMicrobatcher(where, name="own")

    def closing():
        monkeypatch.undo()
        (engine,) = batcher._engines()
        engine.lifespans.end(lambda slot: True)
        return asyncio.get_running_loop()

    monkeypatch.setattr("batchify._asyncio.offload.get_running_loop", closing)

    async def main():
        answer = await batcher.submit(1)
        await batcher.stop()
        return answer

    assert asyncio.run(main()).startswith("own")


async def test_map_raises_the_first_error_in_order_and_withdraws_the_rest():
    """The error of the first item counts, even if that of a later one comes before; queued items are never run."""
    ran = []

    @microbatch(max_size=1, concurrency=2)
    async def fail(items):
        ran.extend(items)
        await asyncio.sleep({0: 2, 1: 1}.get(items[0], 5))
        raise ValueError(items[0])

    with pytest.raises(ValueError, match="0"):
        await fail.map([0, 1, *range(2, 6)])
    begun = len(ran)
    await asyncio.sleep(9)
    assert (0, begun) == (fail.batch_stats.pending, len(ran))
    assert begun < 6


def test_a_loop_whose_clock_counts_milliseconds(monkeypatch):
    """On uvloop, a window below a millisecond is no busy wait, and the run time of a short batch is not 0."""
    uvloop = pytest.importorskip("uvloop")
    on_timer, timers = AsyncEngine._on_timer, []

    def count_timer(engine):
        timers.append(engine)
        on_timer(engine)

    monkeypatch.setattr(AsyncEngine, "_on_timer", count_timer)

    @microbatch(timeout=0.0004)
    async def echo(items):
        await asyncio.sleep(0)
        return items

    with closing_loop(uvloop.new_event_loop()) as loop:
        assert 1 == loop.run_until_complete(echo(1))
    # A busy wait takes some microseconds for each.
    assert 1 <= len(timers) <= 3
    assert 0 < echo.batch_stats.avg_run_time_ms
