"""Draining, closing and opening, tested on both engines and across the bridge."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import Future

import pytest

import batchify
from batchify import AsyncMicrobatcher, BatcherClosedError, SyncMicrobatcher, microbatch
from tests.kit.columns import in_time, settle
from tests.kit.engines import HOUR, PATIENCE, Gate, adoubled, doubled, wait_until


def begin(do):
    """Run ``do()`` in a new thread, and return the future of its outcome."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), daemon=True).start()
    return outcome


def threads_of(name):
    """Return the names of the worker threads of a function."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def drains_of(fn):
    """Return the number of drains that have not ended."""
    return sum(len(engine.line.drains) for engine in fn._self_route.find()._engines())


def drain(fn, timeout=None):
    """Drain from a thread without an event loop."""
    fn.drain(timeout)


def adrain(fn, timeout=None):
    """Drain from another event loop."""
    asyncio.run(fn.adrain(timeout))


def close(fn, timeout=None):
    """Close from a thread without an event loop."""
    fn.close(timeout)


def aclose(fn, timeout=None):
    """Close from another event loop."""
    asyncio.run(fn.aclose(timeout))


both_drains = pytest.mark.parametrize("drain", [drain, adrain])
both_closes = pytest.mark.parametrize("close", [close, aclose])


@both_drains
def test_a_drain_starts_the_queued_items(kit, drain):
    """A drain returns when the queued items are answered, and the next call works."""
    double, gate = kit.decorate(timeout=HOUR)
    callers = kit.call_waiting(double, 1, 2)
    in_time(lambda: drain(double))
    stats = double.batch_stats
    assert ([[1, 2]], 2, 1) == (gate.batches, stats.answered_items, stats.reasons["flush"])
    assert [2, 4] == kit.results(callers)
    later = kit.call_waiting(double, 3)
    in_time(lambda: drain(double))
    assert [6] == kit.results(later)


@both_drains
def test_a_drain_does_not_wait_for_later_calls(kit, drain):
    """A drain ends although calls that were made after it still wait or run."""
    permits = threading.Semaphore(0)

    def permitted(items):
        assert permits.acquire(timeout=PATIENCE)
        return doubled(items)

    double, _ = kit.decorate(permitted, max_size=1)
    callers = kit.call_waiting(double, 1, 2)
    draining = begin(lambda: drain(double))
    wait_until(lambda: drains_of(double))
    callers += kit.call_waiting(double, 3)
    assert not draining.done()
    permits.release(2)
    draining.result(PATIENCE)
    assert not callers[2].done()
    permits.release()
    assert [2, 4, 6] == kit.results(callers)


@both_drains
def test_a_drain_that_takes_too_long_raises(kit, drain):
    """After its timeout, a drain raises an error, and the calls go on."""
    double, gate = kit.held()
    with pytest.raises(TimeoutError, match="double still had 1 unanswered call at the end of its timeout"):
        in_time(lambda: drain(double, 0))
    callers = kit.call_waiting(double, 1, 2)
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError, match="double still had 3 unanswered calls at the end of its timeout"):
            in_time(lambda: drain(double, timeout))  # noqa: B023  # it is only called in this iteration
    gate.open()
    assert [2, 4] == kit.results(callers)


@both_drains
def test_a_drain_of_an_idle_function(kit, drain):
    """A drain of a function that was never called, or is idle, returns at once."""
    double, _ = kit.decorate()
    in_time(lambda: drain(double, 0))
    assert 2 == kit.call(double, 1).result(PATIENCE)
    wait_until(lambda: not double.batch_stats.running)
    in_time(lambda: drain(double))


@both_closes
def test_closing_with_a_timeout_drops_the_queued_items(kit, close):
    """After its timeout, ``close()`` fails the items that have not started, and leaves the running batch."""
    double, gate = kit.held()
    queued = kit.call_waiting(double, 1, 2)
    in_time(lambda: close(double, 0))
    message = "double was closed before it could start this item; allow close() a longer timeout"
    assert [(BatcherClosedError, message)] * 2 == [(type(error), str(error)) for error in kit.errors(queued)]
    stats = double.batch_stats
    assert (0, 1, 2, 0) == (stats.pending, stats.running, stats.failed_items, stats.cancelled_items)
    gate.open()
    wait_until(lambda: double.batch_stats.answered_items == 1)
    assert [[0]] == gate.batches


@both_closes
def test_closing_within_its_timeout(kit, close):
    """``close()`` returns as soon as all calls are answered, whatever its timeout."""
    double, _ = kit.decorate(timeout=HOUR)
    callers = kit.call_waiting(double, 1)
    in_time(lambda: close(double, HOUR))
    assert [2] == kit.results(callers)


@pytest.mark.parametrize("member", ["drain", "close"])
@pytest.mark.parametrize(("error", "value"), [(TypeError, "1"), (TypeError, True), (ValueError, -1)])
def test_a_wrong_timeout_is_refused(kit, member, error, value):
    """A timeout is a number of seconds of at least 0, and a wrong one closes nothing."""
    double, _ = kit.decorate()
    with pytest.raises(error, match="timeout must be"):
        getattr(double, member)(value)
    with pytest.raises(error, match="timeout must be"):
        asyncio.run(getattr(double, f"a{member}")(value))
    assert 2 == kit.call(double, 1).result(PATIENCE)


@pytest.mark.parametrize("end", [drain, adrain, close, aclose])
def test_idle_worker_threads_have_ended(threads, end):
    """``drain()`` and ``close()`` return when the idle worker threads, also that for deadlines, have ended."""
    # A name of its own, because the threads of the case before may not have ended quite yet.
    name = f"ended by {end.__name__}"
    double, _ = threads.decorate(name=name, concurrency=2)
    assert 2 == double.options(deadline=HOUR)(1)
    assert 2 == len(threads_of(name))
    in_time(lambda: end(double))
    assert [] == threads_of(name)
    double.open()
    assert [4, 6] == [double(2), double.options(deadline=HOUR)(3)]


def test_a_drain_does_not_wait_for_a_busy_worker(threads):
    """A worker that runs a batch of later calls does not end, and the drain does not wait for it."""
    permits = {item: threading.Semaphore(0) for item in (1, 2)}

    def permitted(items):
        assert permits[items[0]].acquire(timeout=PATIENCE)
        return doubled(items)

    double, _ = threads.decorate(permitted, max_size=1, concurrency=2, timeout=0, name="busy")
    first = threads.call_waiting(double, 1)
    draining = begin(double.drain)
    wait_until(lambda: drains_of(double))
    later = threads.call(double, 2)
    wait_until(lambda: double.batch_stats.running == 2)
    permits[1].release()
    draining.result(PATIENCE)
    assert ([2], False) == (threads.results(first), later.done())
    wait_until(lambda: len(threads_of("busy")) == 1)
    permits[2].release()
    assert 4 == later.result(PATIENCE)


def test_a_worker_that_gets_work_refuses_to_end(threads, monkeypatch):
    """Items that arrive while the workers are asked to end keep a worker, and the drain does not wait for it."""
    double, _ = threads.decorate(timeout=HOUR, name="kept")
    assert 2 == in_time(lambda: [double.submit(1), double.flush()][0].result(PATIENCE))
    engine = double._self_route.find()._engine
    end_workers, later = engine.end_workers, []

    def arrive_first():
        later.append(double.options(deadline=HOUR).submit(2))
        return end_workers()

    monkeypatch.setattr(engine, "end_workers", arrive_first, raising=False)
    in_time(double.drain)
    assert 2 == len(threads_of("kept"))
    double.flush()
    assert 4 == later[0].result(PATIENCE)


def test_an_open_function_takes_calls_again(kit):
    """``open()`` takes calls again after ``close()``, and the counters go on."""
    double, _ = kit.decorate()
    for turn in (1, 2):
        assert 2 == kit.call(double, 1).result(PATIENCE)
        in_time(double.close)
        in_time(double.close)
        assert BatcherClosedError is type(kit.call(double, 1).exception(PATIENCE))
        double.open()
        assert turn == double.batch_stats.total_items


def test_opening_waits_for_a_close_in_progress(kit):
    """``open()`` returns after a ``close()`` that another thread began, and does not undo it."""
    double, gate = kit.held()
    closing = begin(double.close)
    wait_until(lambda: not double._self_route.find().is_running)
    opening = begin(double.open)
    queued = kit.call(double, 1)
    assert BatcherClosedError is type(queued.exception(PATIENCE))
    assert not opening.done()
    gate.open()
    closing.result(PATIENCE)
    opening.result(PATIENCE)
    assert 4 == kit.call(double, 2).result(PATIENCE)


def test_a_child_of_a_fork_does_not_wait_for_a_close_of_its_parent(kit):
    """In the child, a ``close()`` that was in progress has no thread that would end it, and ``open()`` returns."""
    double, gate = kit.held()
    closing = begin(double.close)
    wait_until(lambda: not double._self_route.find().is_running)
    double._self_route.find()._reset_after_fork()
    in_time(double.open)
    assert not closing.done()
    gate.open()
    closing.result(PATIENCE)


def test_opening_right_after_a_timeout_does_not_keep_the_dropped_items(kit):
    """The items that ``close()`` fails at the end of its timeout fail even if ``open()`` follows at once."""
    double, gate = kit.held()
    queued = kit.call_waiting(double, 1, 2)
    double.close(0)
    double.open()
    gate.open()
    assert [BatcherClosedError] * 2 == [*map(type, kit.errors(queued))]


def test_a_close_harms_no_call_after_a_later_close(kit):
    """If a second ``close()`` ends first and the function is opened, the timeout of the first one fails no call."""
    double, gate = kit.held()
    closing = begin(lambda: double.close(0.2))
    wait_until(lambda: not double._self_route.find().is_running)
    double.close(0)
    double.open()
    call = kit.call(double, 1)
    closing.result(PATIENCE)
    gate.open()
    assert 2 == call.result(PATIENCE)


def test_a_function_as_a_context_manager_opens_and_closes(kit):
    """``with fn:`` opens the function and closes it at the end, any number of times; ``async with`` too."""
    double, _ = kit.decorate()

    async def call():
        async with double:
            return await asyncio.wrap_future(kit.call(double, 2))

    for _ in range(2):
        with double:
            assert 2 == kit.call(double, 1).result(PATIENCE)
        assert BatcherClosedError is type(kit.call(double, 1).exception(PATIENCE))
        assert 4 == in_time(lambda: asyncio.run(call()))
        assert BatcherClosedError is type(kit.call(double, 1).exception(PATIENCE))


def test_a_closed_class_refuses_new_instances_until_it_is_opened():
    """``Class.method.close()`` covers instances that are created later, until ``open()``."""

    class Model:
        double = microbatch(lambda self, items: doubled(items))

    old = Model()
    assert 2 == old.double(1)
    Model.double.close()
    for model in (old, Model()):
        with pytest.raises(BatcherClosedError):
            model.double(1)
    Model.double.open()
    assert [2, 2] == [model.double(1) for model in (old, Model())]
    old.double.close()
    with pytest.raises(BatcherClosedError):
        old.double(1)
    old.double.open()
    assert 2 == old.double(1)


async def test_blocking_the_loop_of_the_batches_is_refused():
    """On the loop that has to run the batches, the blocking forms raise an error that names the other form."""
    gate = asyncio.Event()

    @microbatch(name="double")
    async def double(items):
        await gate.wait()
        return doubled(items)

    caller = double.submit(1)
    reason = "would block the event loop that has to run its batches"
    for member in ("drain", "close"):
        with pytest.raises(RuntimeError, match=re.escape(f"double.{member}() {reason}; use: await a{member}()")):
            getattr(double, member)()
    closing = asyncio.ensure_future(double.aclose())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=re.escape(f"double.open() {reason}; use: async with double")):
        double.open()
    gate.set()
    await closing
    double.open()
    assert [2, 4] == [await caller, await double(2)]


async def test_an_async_with_waits_for_a_close_in_progress():
    """``async with`` on the loop that closes the function waits until it is closed."""
    gate = asyncio.Event()

    @microbatch
    async def double(items):
        await gate.wait()
        return doubled(items)

    caller = double.submit(1)
    closing = asyncio.ensure_future(double.aclose())
    await asyncio.sleep(0)

    async def opened():
        async with double:
            return await double(2)

    opening = asyncio.ensure_future(opened())
    await asyncio.sleep(1)
    assert not opening.done()
    gate.set()
    assert [2, None, 4] == [await caller, await closing, await opening]


@pytest.mark.parametrize("member", ["drain", "close"])
async def test_a_def_function_that_blocks_a_loop_warns_in_debug_mode(member):
    """On an event loop in debug mode, the blocking forms of a ``def`` function warn."""
    double = microbatch(doubled, name="double")
    asyncio.get_running_loop().set_debug(True)
    with pytest.warns(RuntimeWarning, match=re.escape(f"double.{member}() blocks the event loop")):
        getattr(double, member)()


def test_a_batch_does_not_wait_for_itself(kit):
    """``drain()`` and ``close()`` from inside a batch return at once, and the batch ends as usual."""

    def ended(items):
        double.drain()
        asyncio.run(double.adrain())
        double.close()
        return doubled(items)

    double, _ = kit.decorate(ended)
    assert 2 == kit.call(double, 1).result(PATIENCE)
    in_time(double.close)


@pytest.mark.parametrize("member", ["drain_all", "close_all"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_two_batches_that_end_each_other_do_not_wait(kit, member, concurrency):
    """Two batches that drain or close all batchers at the same time do not wait for each other."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def ended(items):
        both.wait()
        getattr(batchify, member)()
        return doubled(items)

    first, _ = kit.decorate(ended, concurrency=concurrency)
    second, _ = kit.decorate(ended, concurrency=concurrency)
    assert [2, 4] == kit.results([kit.call(first, 1), kit.call(second, 2)])


def test_a_batch_waits_for_another_function(kit):
    """A batch that drains another function waits for it, unless that waits for the batch."""
    inner, gate = kit.held()
    begun = threading.Event()

    def ended(items):
        begun.set()
        inner.drain()
        return [gate.is_open()]

    outer, _ = kit.decorate(ended)
    caller = kit.call(outer, 1)
    assert begun.wait(PATIENCE)
    wait_until(lambda: drains_of(inner))
    assert not caller.done()
    gate.open()
    assert caller.result(PATIENCE)


@pytest.mark.parametrize(
    "drain_all", [batchify.drain_all, lambda timeout=None: asyncio.run(batchify.adrain_all(timeout))]
)
def test_all_batchers_drain(kit, drain_all):
    """``drain_all()`` drains every live batcher; after the timeout for all, it raises an error."""
    waiting = [kit.decorate(timeout=HOUR)[0] for _ in range(2)]
    callers = [caller for double in waiting for caller in kit.call_waiting(double, 1)]
    in_time(drain_all)
    assert [2, 2] == kit.results(callers)
    held, gate = kit.held()
    late = kit.call_waiting(waiting[0], 3)
    with pytest.raises(TimeoutError):
        in_time(lambda: drain_all(0))
    gate.open()
    in_time(drain_all)
    assert [6] == kit.results(late)


@pytest.mark.parametrize("end_all", [batchify.drain_all, lambda: asyncio.run(batchify.aclose_all())])
def test_all_batchers_start_their_items_at_once(kit, end_all):
    """A batcher need not wait for the end of those before it, which may take as long as the timeout."""
    held, gate = kit.held()
    later, _ = kit.decorate(timeout=HOUR)
    callers = kit.call_waiting(later, 1)
    ending = threading.Thread(target=end_all)
    ending.start()
    assert [2] == kit.results(callers)
    assert 1 == held.batch_stats.running
    gate.open()
    in_time(ending.join)


async def test_functions_on_a_loop_share_one_time_limit(moment):
    """``adrain_all()`` ends after its time limit by the clock of the loop, however many functions do not drain."""

    async def stuck(items):
        await asyncio.get_running_loop().create_future()

    fns = [microbatch(stuck) for _ in range(3)]
    calls = [asyncio.ensure_future(fn(1)) for fn in fns]
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await batchify.adrain_all(timeout=5)
    assert 5 == moment()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


@pytest.mark.parametrize("close_all", [batchify.close_all, lambda timeout: asyncio.run(batchify.aclose_all(timeout))])
def test_all_batchers_close_within_a_timeout(kit, close_all):
    """``close_all()`` takes a timeout for all batchers."""
    held, gate = kit.held()
    queued = kit.call_waiting(held, 1)
    in_time(lambda: close_all(0))
    assert [BatcherClosedError] == [type(error) for error in kit.errors(queued)]
    gate.open()


async def test_the_asyncio_engine_class_drains_and_stops_in_time():
    """``AsyncMicrobatcher.drain()`` is awaited, and ``stop()`` takes a timeout."""
    batcher = AsyncMicrobatcher(adoubled, batch_wait_timeout_s=HOUR)
    caller = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0)
    await batcher.drain()
    assert 2 == await caller
    caller = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0)
    await batcher.stop(timeout=0)
    with pytest.raises(BatcherClosedError, match="before it could start"):
        await caller
    await batcher.start()
    assert batcher.is_running


def test_the_thread_engine_class_drains_and_stops_in_time():
    """``SyncMicrobatcher.drain()`` blocks, and ``stop()`` takes a timeout."""
    gate = Gate(doubled)
    batcher = SyncMicrobatcher(gate, batch_wait_timeout_s=HOUR, name="double")
    caller = begin(lambda: batcher.submit(1))
    wait_until(lambda: batcher.stats.pending)
    batcher.drain()
    assert 2 == caller.result(PATIENCE)
    gate.shut()
    running = begin(lambda: batcher.submit(2))
    wait_until(lambda: batcher.stats.pending)
    batcher.flush()
    wait_until(lambda: batcher.stats.running)
    queued = begin(lambda: batcher.submit(3))
    wait_until(lambda: batcher.stats.pending)
    batcher.stop(timeout=0)
    assert BatcherClosedError is type(queued.exception(PATIENCE))
    gate.open()
    assert 4 == running.result(PATIENCE)
    batcher.start()
    assert batcher.is_running


async def test_a_stop_in_virtual_time_keeps_its_timeout(moment):
    """``aclose()`` waits for its timeout on the clock of the loop."""
    never = asyncio.Event()

    @microbatch
    async def double(items):
        await never.wait()

    caller = double.submit(1)
    await asyncio.sleep(0)
    before = moment()
    await double.aclose(5)
    assert 5 == round(moment() - before, 3)
    caller.cancel()


async def test_dropping_the_queue_skips_callers_that_left():
    """A caller that is cancelled as the queue is dropped is cancelled, and an idle engine has nothing to drop."""
    double = microbatch(adoubled, timeout=HOUR)
    callers = [asyncio.ensure_future(double(item)) for item in (1, 2)]
    await asyncio.sleep(0)
    [engine] = double._self_route.find()._engines()
    callers[0].cancel()
    engine.drop_queued()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert [asyncio.CancelledError, BatcherClosedError] == [type(end) for end in ends]
    engine.drop_queued()
    later = double.submit(3)
    double.flush()
    assert 6 == await later
