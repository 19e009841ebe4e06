"""The thread engine: workers, futures, callers on event loops, forks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import sys
import threading
from concurrent.futures import as_completed, wait
from itertools import chain
from math import inf
from time import monotonic

import pytest

from batchify import (
    BatcherClosedError,
    ReentrantCallError,
    SyncMicrobatcher,
    batchers,
    microbatch,
)
from batchify._batcher.line import Line
from batchify._batcher.waiters import Failed
from batchify._core.grouped import GroupedQueue
from batchify._core.timing import Adaptive
from batchify._threads import workers as _workers
from batchify._threads.engine import ThreadEngine
from batchify._threads.waiters import ThreadWaiter
from batchify._threads.workers import Worker
from tests.kit.engines import PATIENCE, Gate, await_queued, doubled, failing, wait_until
from tests.kit.processes import printed_by


@pytest.fixture
def kit(threads):
    return threads


def workers(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def cannot_start(thread):
    raise RuntimeError


class Late:
    """A blocked caller that has found the plain queue of an engine, but has not joined it yet."""

    def __init__(self, batcher):
        self.engine = batcher._ensure_engine()
        self._queue = self.engine.plain
        self._mark = self._queue.mark
        self.waiter = ThreadWaiter()

    def join(self, item):
        """Join the queue, and return whether the engine must know it."""
        self._queue.places += (item, self.waiter, monotonic())
        return len(self._queue.places) >= self._queue.wake_length

    def tell(self):
        """Tell the engine."""
        return self.engine.arrived(self._queue, self._mark, self.waiter)

    def result(self):
        assert self.waiter.acquire(timeout=PATIENCE)
        if type(self.waiter.value) is Failed:
            raise self.waiter.value.error
        return self.waiter.value


def test_a_call_that_joins_a_closed_engine():
    """A call that found the engine open, but joins it after ``close()``, is refused, and does not run."""
    batcher = SyncMicrobatcher(doubled)
    late = Late(batcher)
    batcher.close()
    assert late.join(1)
    with pytest.raises(BatcherClosedError):
        late.tell()
    assert (0, 0) == (batcher.stats.pending, batcher.stats.total_items)


def test_a_call_that_joins_just_before_its_engine_is_closed():
    """A call that joins the engine before ``close()`` is answered, although it tells the engine only afterwards."""
    batcher = SyncMicrobatcher(doubled)
    late = Late(batcher)
    late.join(1)
    batcher.close()
    assert -1 == late.tell()
    assert (2, 1) == (late.result(), batcher.stats.answered_items)


def test_a_call_that_joins_a_queue_that_was_replaced():
    """A call that found the plain queue is answered, although the engine uses another queue when the call joins."""
    batcher = SyncMicrobatcher(doubled)
    late = Late(batcher)
    batcher._change({"takes_requests": True})
    assert late.join(1)
    assert -1 == late.tell()
    assert (2, 1) == (late.result(), batcher.stats.answered_items)


def test_a_call_that_moves_to_another_queue_is_counted_meanwhile(monkeypatch):
    """A call that joins as another thread begins to change the queue moves in one step for readers of statistics."""
    batcher = SyncMicrobatcher(doubled)
    late = Late(batcher)
    late.join(1)
    assert 1 == batcher.stats.pending
    # The first step of ``configure()``.
    late.engine.plain = None
    add, readers_wait = Line.add, []
    monkeypatch.setattr(Line, "add", lambda line, *call: readers_wait.append(line.is_interrupted()) or add(line, *call))
    late.tell()
    assert [True] == readers_wait
    assert (2, 1) == (late.result(), batcher.stats.answered_items)


@pytest.mark.parametrize("threads_start", [True, False])
def test_a_call_that_joins_while_its_engine_opens_again(monkeypatch, threads_start):
    """A call that joins while ``start()`` opens the engine gets a result, or an error if no thread can start."""
    batcher = SyncMicrobatcher(doubled)
    late = Late(batcher)
    batcher.close()
    late.join(1)
    if not threads_start:
        monkeypatch.setattr(_workers.Thread, "start", cannot_start)
    batcher.start()
    if threads_start:
        assert 2 == late.result()
    else:
        with pytest.raises(RuntimeError):
            late.result()


def test_an_error_as_a_worker_is_woken_reaches_only_its_caller(monkeypatch):
    """If another worker exists, the callers that wait already keep their places."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=3600)
    first = batcher._submit_nowait(1)

    def fail(engine):
        raise MemoryError

    monkeypatch.setattr(ThreadEngine, "_wake_worker", fail)
    with pytest.raises(MemoryError):
        batcher._submit_nowait(2)
    monkeypatch.undo()
    batcher.flush()
    assert (2, 1) == (first.result(PATIENCE), batcher.stats.total_items)


def test_a_future_cancelled_as_it_expires(monkeypatch):
    """A future that is cancelled while its deadline passes stays cancelled, and the worker continues."""
    double = microbatch(doubled, timeout=3600)
    late = double.options(deadline=3600).submit(1)
    engine = double._self_route.find()._engine
    now, expire = engine.line.queue.entries[0].deadline, GroupedQueue.expire

    def cancel_and_expire(queue, now):
        expired = expire(queue, now)
        late.cancel()
        return expired

    monkeypatch.setattr(GroupedQueue, "expire", cancel_and_expire)
    monkeypatch.setattr("batchify._threads.engine.monotonic", lambda: now)
    engine._expire()
    monkeypatch.undo()
    assert late.cancelled()
    double.close()
    assert (0, 0) == (double.batch_stats.pending, double.batch_stats.running)


def test_one_thread_runs_all_batches(kit):
    """With ``concurrency=1`` the function runs on one and the same thread, which has the name of the function."""
    seen = set()
    double, _ = kit.decorate(lambda items: seen.add(threading.current_thread()) or items, max_size=1, name="one thread")
    kit.results(kit.call_waiting(double, *range(20)))
    assert ["one thread-0"] == [thread.name for thread in seen]


def test_a_lone_caller_waits_for_its_window(kit):
    """With a fixed window, a lone caller gets its answer when the window ends."""
    double, _ = kit.decorate(timeout=0.05)
    assert 2 == kit.call(double, 1).result(PATIENCE)
    assert 1 == double.batch_stats.reasons["timeout"]
    assert 50 <= double.batch_stats.wait_ms.max


def test_no_thread_before_the_first_call(kit):
    """Decorating a function and reading its statistics starts no thread."""
    before = threading.active_count()
    double, _ = kit.decorate()
    assert 0 == double.batch_stats.total_items
    assert before == threading.active_count()


def test_a_dropped_function_ends_its_thread():
    """A function's thread ends with the last reference to the function."""
    double = microbatch(doubled, name="dropped")
    assert 2 == double(1)
    assert 1 == len(workers("dropped"))
    del double
    wait_until(lambda: gc.collect() >= 0 and not workers("dropped"))


def test_a_dropped_function_answers_its_queued_items():
    """A function that is dropped while an item is queued still answers it, and then its thread ends."""
    gate = Gate(doubled)
    gate.shut()
    double = microbatch(gate, name="owing")
    first = double.submit(1)
    gate.await_batch()
    second = double.submit(2)
    del double
    gc.collect()
    gate.open()
    assert [2, 4] == [first.result(PATIENCE), second.result(PATIENCE)]
    wait_until(lambda: gc.collect() >= 0 and not workers("owing"))


def test_a_function_dropped_before_its_thread_begins(monkeypatch):
    """A submitted item is answered, although the function is dropped before its thread begins."""
    begin = threading.Event()

    class Late(threading.Thread):
        def run(self):
            assert begin.wait(PATIENCE)
            super().run()

    monkeypatch.setattr("batchify._threads.workers.Thread", Late)
    future = microbatch(doubled).submit(1)
    gc.collect()
    begin.set()
    assert 2 == future.result(PATIENCE)


def test_a_function_dropped_before_its_thread_wakes(monkeypatch):
    """A submitted item is answered, although the function is dropped before its idle thread wakes."""
    locks = []

    class Slow:
        """A lock whose ``acquire()`` returns late."""

        def __init__(self):
            self._lock = threading.Lock()
            self.go_on = threading.Event()
            self.go_on.set()
            locks.append(self)

        def acquire(self, **options):
            taken = self._lock.acquire(**options)
            assert self.go_on.wait(PATIENCE)
            return taken

        def release(self):
            self._lock.release()

        def __exit__(self, *engine):
            self._lock.release()

    monkeypatch.setattr("batchify._threads.workers.Lock", Slow)
    double = microbatch(doubled)
    assert 2 == double(1)
    idle = double._self_route.find()._engine.workers.idle
    wait_until(lambda: idle)
    for lock in locks:
        lock.go_on.clear()
    future = double.submit(2)
    del double
    gc.collect()
    for lock in locks:
        lock.go_on.set()
    assert 4 == future.result(PATIENCE)


def test_a_dropped_function_without_callers_ends_its_thread():
    """A worker that waits for the window of an item stops waiting when the only caller leaves."""
    echo = microbatch(lambda items: items, timeout=3600, name="left")
    future = echo.submit(1)
    # The worker waits for the window.
    idle = echo._self_route.find()._engine.workers.idle
    wait_until(lambda: idle)
    future.cancel()
    del echo, future
    wait_until(lambda: gc.collect() >= 0 and not workers("left"))


def test_a_dropped_instance_ends_its_thread():
    """The thread of a decorated method ends with its instance, and the class keeps the counters."""

    class Model:
        @microbatch(name="instance")
        def run(self, items):
            return items

    model = Model()
    future = model.run.submit(1)
    del model
    assert 1 == future.result(PATIENCE)
    wait_until(lambda: gc.collect() >= 0 and not workers("instance"))
    assert 1 == Model.run.batch_stats.total_items


def test_a_thread_that_cannot_be_started(monkeypatch):
    """When no thread can be started, the call fails, and the next call tries again."""
    double = microbatch(doubled)

    def fail(self):
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            double(1)
    assert (0, 1) == (double.batch_stats.pending, double.batch_stats.cancelled_items)
    assert 4 == double(2)


def test_a_second_thread_that_cannot_be_started(monkeypatch, kit):
    """When a second worker cannot be started, the first one runs the queued items."""
    double, gate = kit.decorate(concurrency=2, max_size=1, timeout=0)
    gate.shut()
    callers = kit.call_waiting(double, 1)
    gate.await_batch()

    def fail(self):
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(_workers.Thread, "start", fail)
        futures = [double.submit(2), double.submit(3)]
        gate.open()
        assert [4, 6] == [future.result(PATIENCE) for future in futures]
    assert [2] == kit.results(callers)


def test_a_window_can_end_when_no_thread_can_be_started(monkeypatch, kit):
    """A call that waits for its window has a worker from the beginning, as the process may end before the window."""
    double, _ = kit.decorate(timeout=3600)
    callers = kit.call_waiting(double, 1)
    [batcher] = double._self_scope.batchers()
    wait_until(lambda: batcher._engine.workers.idle)

    def fail(self):
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(_workers.Thread, "start", fail)
        double.flush()
        assert [2] == kit.results(callers)


def test_a_worker_wakes_the_next_one(kit):
    """A worker that takes a batch wakes another one if more items may leave."""
    double, gate = kit.decorate(concurrency=2, timeout=3600, max_size=2)
    gate.shut()
    callers = kit.call_waiting(double, 1, 2)
    gate.await_batch()
    callers += kit.call_waiting(double, 3)
    double.flush()
    gate.await_batch()
    gate.open()
    assert [2, 4, 6] == kit.results(callers)


def test_an_answered_caller_can_share_the_next_batch(kit, monkeypatch):
    """Before a batch that would leave at once and has room, the worker yields, so that an answered caller can join."""
    double, gate = kit.decorate()
    yields = []

    def yield_to_callers(seconds):
        yields.append(seconds)
        wait_until(lambda: double.batch_stats.pending == 2)

    monkeypatch.setattr("batchify._threads.engine.sleep", yield_to_callers)
    gate.shut()
    caller = kit.call(lambda: [double(1), double(3)])
    gate.await_batch()
    callers = [caller, *kit.call_waiting(double, 2)]
    gate.open()
    assert [[2, 6], 4] == kit.results(callers)
    assert ([[1], [2, 3]], [0]) == (gate.batches, yields)


@pytest.mark.parametrize(
    ("options", "batches", "yields"),
    [
        ({}, [[0], [1, 2], [3, 4], [5]], [[3, 4]]),
        ({"timeout": 3600}, [[0, 1], [2, 3], [4, 5]], []),
        ({"timeout": 3600, "max_size": 5}, [[0, 1, 2, 3, 4], [5]], []),
    ],
    ids=["adaptive", "full batches", "a window"],
)
def test_a_worker_yields_only_if_a_caller_could_join_the_next_batch(kit, monkeypatch, options, batches, yields):
    """A worker does not yield before a full batch, nor if none would leave at once: no call waits, or a window runs."""
    double, gate = kit.decorate(**{"max_size": 2, **options})
    seen = []
    monkeypatch.setattr("batchify._threads.engine.sleep", lambda _: seen.append(gate.batches[-1]))
    gate.shut()
    callers = kit.call_waiting(double, *batches[0])
    gate.await_batch()
    callers += kit.call_waiting(double, *range(len(callers), 6))
    gate.open()
    [batcher] = double._self_scope.batchers()
    workers = batcher._engine.workers
    wait_until(lambda: double.batch_stats.running == 0 and workers.idle)
    double.flush()
    assert [0, 2, 4, 6, 8, 10] == kit.results(callers)
    # Its only worker has done all of its work when it ends.
    double.close()
    wait_until(lambda: not workers.all)
    assert (batches, yields) == (gate.batches, seen)


def test_a_call_applies_changed_options_first(kit):
    """Options that could not be applied at once, because a thread was in the engine, apply before the next call."""
    double, _ = kit.decorate(timeout=0, max_size=2)
    assert 0 == double(0)
    engine = double._self_route.find()._engine
    wait_until(lambda: engine.workers.idle)
    with engine._lock:
        changing = threading.Thread(target=lambda: double.configure(max_size=1))
        changing.start()
        changing.join(PATIENCE)
    assert 2 == engine.line.config.max_size
    assert (2, 1) == (double(1), engine.line.config.max_size)


def test_a_worker_that_is_asked_to_end_runs_what_is_queued(kit):
    """A worker that finds an item as it is asked to end stays, and its end is not waited for."""
    double, _ = kit.decorate(timeout=0)
    assert 0 == double(0)
    engine = double._self_route.find()._engine
    wait_until(lambda: engine.workers.idle)
    with engine._lock:
        [worker] = engine.workers.all
        [end] = engine.workers.end_idle(engine, ())
        call = kit.call(double, 1)
        wait_until(lambda: engine.line.waiting)
    assert 2 == call.result(PATIENCE)
    end.result(PATIENCE)
    assert [worker] == [*engine.workers.all]


def test_a_future_cancelled_at_the_last_moment_is_not_run(kit, monkeypatch):
    """A batch drops a future that is cancelled between the departure of the batch and its run."""
    double, gate = kit.decorate(timeout=3600)
    gone, stays = double.submit(1), double.submit(2)
    run = ThreadEngine.run

    def cancel_first(self, *batch):
        gone.cancel()
        return run(self, *batch)

    monkeypatch.setattr(ThreadEngine, "run", cancel_first)
    double.flush()
    assert 4 == stays.result(PATIENCE)
    assert [[2]] == gate.batches
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.answered_items)


def test_a_batch_without_callers_is_not_run(kit, monkeypatch):
    """A batch whose callers have all left before its run is dropped, and its slot is free."""
    double, gate = kit.decorate(timeout=3600)
    gone = double.submit(1)
    run = ThreadEngine.run

    def cancel_all(self, *batch):
        gone.cancel()
        return run(self, *batch)

    monkeypatch.setattr(ThreadEngine, "run", cancel_all)
    double.close()
    assert [] == gate.batches
    assert 1 == double.batch_stats.cancelled_items


@pytest.mark.parametrize("mark", [False, True], ids=["still pending", "marked as running"])
def test_a_queued_future_that_its_owner_sets(kit, mark, caplog):
    """A future that its owner sets while it is queued harms neither its neighbour nor the worker."""
    double, _ = kit.decorate(timeout=3600)
    mine, other = double.submit(1), double.submit(2)
    if mark:
        mine.set_running_or_notify_cancel()
    mine.set_result("mine")
    double.flush()
    assert ("mine", 4) == (mine.result(PATIENCE), other.result(PATIENCE))
    # concurrent.futures logs the mistake of the owner.
    assert ["concurrent.futures"] == [record.name for record in caplog.records]


def test_a_future_that_its_owner_marked_as_running_is_answered(kit, caplog):
    """A future that its owner has marked as running is still answered."""
    double, _ = kit.decorate(timeout=3600)
    future = double.submit(1)
    future.set_running_or_notify_cancel()
    double.flush()
    assert 2 == future.result(PATIENCE)
    assert ["concurrent.futures"] == [record.name for record in caplog.records]


@pytest.mark.parametrize("reset", [False, True], ids=["same engine", "after a reset"])
def test_waiting_for_a_cancelled_future_ends(kit, reset):
    """``concurrent.futures.wait`` and ``as_completed`` return a future that was cancelled while it was queued."""
    double, _ = kit.decorate(timeout=3600)
    future = double.submit(1)
    if reset:
        # As in the child of a fork, where no batch takes it.
        double._self_route.find()._reset_after_fork()
    assert future.cancel()
    assert {future} == wait([future], PATIENCE).done
    assert [future] == list(as_completed([future], PATIENCE))


def test_map_withdraws_queued_items_after_an_error(kit):
    """After the first error, ``map`` withdraws the items that are still queued."""

    def fail_on_one(items):
        if items == [1]:
            raise KeyError
        return items

    double, gate = kit.decorate(fail_on_one, max_size=1)
    gate.shut()
    caller = kit.call(double.map, [1, 2, 3])
    gate.await_batch()
    gate.open()
    assert isinstance(caller.exception(PATIENCE), KeyError)


def test_a_worker_survives_a_base_exception(kit):
    """``SystemExit`` in a batch function reaches its callers, and the same thread runs the next batch."""
    threads = set()

    def end(items):
        threads.add(threading.current_thread())
        if items == [1]:
            raise SystemExit(3)
        return items

    double, _ = kit.decorate(end)
    assert 3 == kit.call(double, 1).exception(PATIENCE).code
    assert 2 == kit.call(double, 2).result(PATIENCE)
    assert 1 == len(threads)


def test_an_exception_leaves_no_frame_alive():
    """After callers have handled their exceptions, these keep no frame of the batch alive, without a collection."""
    fail, seen = failing()
    fail = microbatch(fail, timeout=0)
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(KeyError):
                fail(1)
            future = fail.submit(2)
            assert KeyError is type(future.exception(PATIENCE))
            del future
        wait_until(lambda: not any(local() for local in seen))
    finally:
        gc.enable()
    assert 6 == len(seen)


def test_batches_run_in_a_neutral_context(kit):
    """A batch sees no context variable of a caller, nor one of the batch before."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen = []

    def read(items):
        seen.append(tenant.get())
        tenant.set("batch")
        return items

    double, _ = kit.decorate(read)
    tenant.set("caller")
    double(1)
    double(2)
    assert ["none", "none"] == seen


def test_tasks_of_several_loops_and_threads_share_a_batch(kit):
    """Calls of a ``def`` function from threads and from several loops share a batch."""
    double, gate = kit.decorate()
    gate.shut()
    first = kit.call_waiting(double, 0)
    gate.await_batch()
    others = []
    for n in (1, 2):
        others.append(kit.call(asyncio.run, double.acall(n)))
        wait_until(lambda: double.batch_stats.pending == n)  # noqa: B023  # the function is called in the same iteration
    others += kit.call_waiting(double, 3)
    await_queued(double, 3)
    gate.open()
    assert [0, 2, 4, 6] == kit.results(first + others)
    # The calls of two loops may arrive in any order.
    assert [[0], [1, 2, 3]] == [sorted(batch) for batch in gate.batches]


def test_threads_and_loops_share_batches_under_load(kit):
    """While two loops and eight threads call again and again, each call gets its own answer, in shared batches."""
    tasks, blocked, calls = 20, 8, 25
    double, gate = kit.decorate(max_size=2 * tasks + blocked)

    async def call_in_task(item):
        return [await double.acall(item + n) for n in range(calls)]

    async def call_on_loop(first):
        return [*chain(*await asyncio.gather(*(call_in_task(first + calls * n) for n in range(tasks))))]

    def call_in_thread(first):
        return [double(first + n) for n in range(calls)]

    gate.shut()
    held = kit.call_waiting(double, -1)
    gate.await_batch()
    callers = [kit.call(asyncio.run, call_on_loop(first)) for first in (0, 1000)]
    callers += [kit.call(call_in_thread, first) for first in range(2000, 2200, calls)]
    await_queued(double, 2 * tasks + blocked)
    gate.open()
    items = [*range(500), *range(1000, 1500), *range(2000, 2200)]
    assert (doubled(items), [-2]) == ([*chain(*kit.results(callers))], kit.results(held))
    assert (items[::calls], len(items) + 1) == (sorted(gate.batches[1]), double.batch_stats.answered_items)


def test_an_answer_for_a_closed_loop_is_dropped(kit):
    """Other callers get their answers, although a loop was closed while its item ran."""
    double, gate = kit.decorate(timeout=3600)
    gate.shut()
    loop = asyncio.new_event_loop()
    task = loop.create_task(double.acall(1))
    loop.run_until_complete(asyncio.sleep(0))
    other = kit.call_waiting(double, 2)
    double.flush()
    gate.await_batch()
    loop.close()
    gate.open()
    assert [4] == kit.results(other)
    task.get_coro().close()
    task._log_destroy_pending = False


async def test_the_future_of_a_waiting_task():
    """``waiting()`` shows the future that a task awaits; to cancel that future is to cancel the call."""
    double = microbatch(doubled, timeout=3600, name="awaited")
    caller = asyncio.ensure_future(double.acall(1))
    await asyncio.sleep(0)
    [item] = [item for batcher in batchers() if batcher.name == "awaited" for item in batcher.waiting()]
    assert (1, True) == (item.data, item.future.cancel())
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (0, 1) == (double.batch_stats.pending, double.batch_stats.cancelled_items)


async def test_aclose_does_not_block_the_loop():
    """``aclose()`` of a ``def`` function lets the loop run while it waits."""
    gate = Gate(doubled)
    double = microbatch(gate)
    gate.shut()
    caller = asyncio.ensure_future(double.acall(1))
    # The task calls, and the calls of this iteration enter the engine in the next one.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.await_batch()
    closing = asyncio.ensure_future(double.aclose())
    await asyncio.sleep(0)
    gate.open()
    await closing
    assert 2 == await caller


def test_ctrl_c_in_a_blocked_call():
    """Ctrl-C reaches the main thread while it is blocked in a call, and its item is withdrawn."""
    script = """
        import os, signal, threading
        from batchify import microbatch

        @microbatch(timeout=3600)
        def echo(items):
            return items

        raised = []

        def interrupted(*_):
            if not raised:
                raised.append(True)
                raise KeyboardInterrupt

        def interrupt():
            while not echo.batch_stats.pending:
                pass
            # Repeatedly, as CPython does not notice a signal that comes just before a thread blocks.
            while not raised:
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, interrupted)
        threading.Thread(target=interrupt).start()
        try:
            echo(1)
        except KeyboardInterrupt:
            print("interrupted")
        other = echo.submit(2)
        echo.flush()
        print(other.result(5), echo.batch_stats.cancelled_items, echo.batch_stats.size_histogram)
    """
    assert "interrupted\n2 1 {1: 1}\n" == printed_by(script)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal that Windows does not have")
def test_a_call_within_a_call(kit):
    """A signal handler may call the function while its thread is blocked in a call, and gets its own answer."""
    double, gate = kit.decorate()
    inner = []
    gate.shut()

    def handler(*_):
        # One signal is enough. Another one that comes while the main thread is blocked makes Python 3.11 hang: a traced
        # thread, as under coverage, does not leave the start of a function while a signal is pending.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        if not gate.is_open():
            gate.open()
            inner.append(double(2))

    def interrupt():
        gate.await_batch()
        wait_until(lambda: signal.pthread_kill(main, signal.SIGUSR1) or gate.is_open())

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.get_ident()
        helper = threading.Thread(target=interrupt)
        helper.start()
        assert 2 == double(1)
        helper.join(PATIENCE)
        wait_until(lambda: inner)
    finally:
        # A signal that is still pending is dropped.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, before)
    assert [4] == inner


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal that Windows does not have")
def test_a_signal_handler_that_raises():
    """An error that a signal handler raises in a blocked call ends the call, and its item is not run."""
    gate = Gate(doubled)
    double = microbatch(gate, timeout=3600)
    main = threading.get_ident()

    raised = []

    def handler(*_):
        if not raised:
            raised.append(True)
            raise TimeoutError

    def interrupt():
        # The last line that the main thread runs before it blocks is in submit().
        wait_until(lambda: double.batch_stats.pending and sys._current_frames()[main].f_code.co_name == "submit")
        wait_until(lambda: signal.pthread_kill(main, signal.SIGUSR1) or raised)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(TimeoutError):
            double(1)
        helper.join(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    other = double.submit(2)
    double.flush()
    assert 4 == other.result(PATIENCE)
    assert [[2]] == gate.batches


def test_a_signal_that_is_set_as_its_wait_times_out():
    """Such a signal remains set, even if it is set again, and only the next wait returns at once."""

    class Engine:
        pass

    first, second = Engine(), Engine()
    worker = Worker(first, 0)
    assert first is worker.wait(0)
    worker.wake(first)
    worker.wake(second)
    assert second is worker.wait(inf)
    del first
    assert worker.wait(inf) is None


def test_submitted_items_are_answered_at_exit():
    """The interpreter ends after all submitted items are answered, and writes nothing to its error stream."""
    script = """
        from batchify import microbatch

        @microbatch(timeout=3600)
        def echo(items):
            print("ran", items)
            return items

        future = echo.submit(1)
        future.add_done_callback(lambda f: print("answered", f.result()))
    """
    assert "ran [1]\nanswered 1\n" == printed_by(script)


def test_windows_end_at_exit():
    """A thread that is blocked for a long window gets its answer when the main thread ends."""
    script = """
        import threading
        from batchify import microbatch

        @microbatch(timeout=3600)
        def echo(items):
            return items

        threading.Thread(target=lambda: print(echo(1))).start()
        while not echo.batch_stats.pending:
            pass
    """
    assert "1\n" == printed_by(script)


async def test_a_blocking_call_on_a_loop_warns_in_debug_mode():
    """In asyncio's debug mode, a blocking call from a loop's own thread warns and names the alternative."""
    double = microbatch(doubled)
    assert 2 == double(1)
    asyncio.get_running_loop().set_debug(True)
    with pytest.warns(RuntimeWarning) as caught:
        assert 2 == double(1)
    message = "doubled() blocks the event loop that it is called from; use: await doubled.acall(item)"
    assert [(message, __file__)] == [(str(warning.message), warning.filename) for warning in caught]


@pytest.mark.parametrize(
    ("block", "member", "use"),
    [
        (lambda fn: fn.map([1, 2]), "map", "doubled.acall(item)"),
        (lambda fn: list(fn.imap([1, 2])), "imap", "doubled.acall(item)"),
        (lambda fn: fn.close(), "close", "aclose()"),
    ],
    ids=["map", "imap", "close"],
)
async def test_other_blocking_members_warn_on_a_loop_in_debug_mode(block, member, use):
    """In asyncio's debug mode, each member that blocks its loop warns and names the alternative."""
    double = microbatch(doubled)
    asyncio.get_running_loop().set_debug(True)
    with pytest.warns(RuntimeWarning) as caught:
        block(double)
    message = f"doubled.{member}() blocks the event loop that it is called from; use: await {use}"
    assert [(message, __file__)] == [(str(warning.message), warning.filename) for warning in caught]


async def test_submit_warns_in_debug_mode_if_it_blocks(threads):
    """``submit`` warns if it has to wait for room, and not if it queues its item at once."""
    double, gate = threads.held(max_pending=1, max_size=1)
    asyncio.get_running_loop().set_debug(True)
    waiting = double.submit(1)
    with pytest.raises(
        RuntimeWarning, match=r"^double\.submit\(\) blocks the event .* use: await double\.acall\(item\)"
    ):
        double.submit(2)
    assert 1 == double.batch_stats.pending
    gate.open()
    assert 2 == waiting.result(PATIENCE)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_has_batchers_of_its_own():
    """After a fork with queued items and live threads, both processes answer their own calls, on both engines."""
    script = """
        import asyncio, os, sys, warnings
        from batchify import AsyncMicrobatcher, microbatch

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch(timeout=3600)
        def echo(items):
            return items

        off_loop = AsyncMicrobatcher(lambda items: items)
        asyncio.run(off_loop.submit(0))

        waiting = echo.submit(1)
        child = os.fork()
        if not child:
            assert (0, 0) == (echo.batch_stats.pending, off_loop.stats.total_items)
            mine = echo.submit(2)
            echo.flush()
            os._exit(mine.result(5) + asyncio.run(off_loop.submit(3)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        echo.flush()
        print(waiting.result(5), asyncio.run(off_loop.submit(4)))
    """
    assert "5\n1 4\n" == printed_by(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_options_change():
    """A fork waits for an option change in another thread, so that the child can change options too."""
    script = """
        import os, signal, threading, warnings
        from batchify import microbatch
        from batchify._batcher import live

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch
        def echo(items):
            return items

        held, leave = threading.Event(), threading.Event()

        def hold():
            with live.configure_lock:
                held.set()
                leave.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        # The last registered hook is called first, so the lock is held when the fork begins.
        os.register_at_fork(before=leave.set)
        child = os.fork()
        if not child:
            signal.alarm(5)
            os._exit(echo.options(priority=1)(2))
        holder.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), echo.options(priority=1)(4))
    """
    assert "2 4\n" == printed_by(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_locks_are_held():
    """The child of a fork does not wait for locks that threads of the parent hold, and the parent is unaffected."""
    script = """
        import os, threading, warnings
        from batchify import microbatch

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch
        def echo(items):
            return items

        print(echo(1))
        engine = echo._self_route.find()._engine
        held, forked = threading.Event(), threading.Event()

        def hold():
            with engine._lock, engine.line.stats.lock:
                held.set()
                forked.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if not child:
            os._exit(echo(2) + echo.batch_stats.total_items)
        forked.set()
        holder.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), echo(4), echo.batch_stats.total_items)
    """
    assert "1\n3 4 2\n" == printed_by(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_counters_are_read():
    """A child has no counters of dropped instances, and waits for no lock under which another thread reads counters."""
    script = """
        import os, signal, threading, warnings
        from batchify import microbatch
        from batchify._batcher.live import register_for_fork
        from batchify._batcher.registry import sources
        from batchify._stats.totals import Totals

        warnings.simplefilter("ignore", DeprecationWarning)

        class Model:
            @microbatch
            def run(self, items):
                return items

        def called():
            return sum(total.counts["total_items"] for total in totals.read())

        Model().run(1)
        Model.run.close()
        totals = Totals(sources)
        register_for_fork(totals)
        print(called(), Model.run.batch_stats.total_items)
        held, forked = threading.Event(), threading.Event()

        def hold():
            with Model.run._self_function._self_route.find()._counters.lock, totals._lock:
                held.set()
                forked.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if not child:
            signal.alarm(5)
            before = called() + Model.run.batch_stats.total_items
            os._exit(10 * before + Model().run(3) + called())
        forked.set()
        holder.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), called(), Model.run.batch_stats.total_items)
    """
    assert "1 1\n4 1 1\n" == printed_by(script)


class TestSyncMicrobatcher:
    """The batcher as a class."""

    def test_submit(self):
        """``submit`` blocks for the result for one item, ``submit_many`` for several."""
        with SyncMicrobatcher(doubled) as batcher:
            assert 2 == batcher.submit(1)
            assert [4, 6] == batcher.submit_many([2, 3])
            assert ("doubled", 3) == (batcher.name, batcher.stats.total_items)

    def test_starting_and_stopping(self):
        """The first ``submit`` starts the batcher, ``stop()`` ends it and its thread, ``start()`` opens it again."""
        batcher = SyncMicrobatcher(doubled, name="restarted")
        assert not batcher.is_running
        assert 2 == batcher.submit(1)
        assert batcher.is_running
        batcher.stop()
        batcher.stop()
        assert not batcher.is_running
        wait_until(lambda: not workers("restarted"))
        with pytest.raises(BatcherClosedError, match="restarted is closed and takes no more calls"):
            batcher.submit(2)
        batcher.start()
        assert 6 == batcher.submit(3)

    def test_its_repr_shows_its_state(self):
        """``repr`` shows the name, whether the batcher is open, and how many items it has."""
        batcher = SyncMicrobatcher(doubled)
        assert "<SyncMicrobatcher doubled: open, 0 pending, 0 running>" == repr(batcher)
        batcher.stop()
        assert "<SyncMicrobatcher doubled: closed, 0 pending, 0 running>" == repr(batcher)


def test_run_times_are_learnt(monkeypatch):
    """The core learns the run time of each batch, by which it spaces the batches of several slots."""
    learnt = []
    monkeypatch.setattr(Adaptive, "ended", lambda self, run_time, size: learnt.append(size))
    double = microbatch(lambda items: [2 * item for item in items], max_size=3, concurrency=2)
    assert [2, 4, 6] == double.map([1, 2, 3])
    double.close()
    assert 3 == sum(learnt)


def test_an_item_that_a_worker_takes_before_its_caller_reports_it(monkeypatch):
    """The worker of an idle engine finds an item that has just arrived, and gets the batch function for it."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=0)
    assert 2 == batcher.submit(1)
    engine = batcher._engine
    wait_until(lambda: engine.workers.idle and engine._fn is None)
    report = ThreadEngine.arrived

    def report_late(engine, *call):
        with engine._lock:
            engine.workers.wake_all(engine)
        wait_until(lambda: 2 == batcher.stats.answered_items)
        return report(engine, *call)

    monkeypatch.setattr(ThreadEngine, "arrived", report_late)
    assert 4 == batcher.submit(2)


def test_a_call_from_a_thread_that_a_batch_starts():
    """The thread belongs to the batch if it runs in a copy of its context."""
    errors = []

    def call():
        try:
            fn(2)
        except ReentrantCallError as error:
            errors.append(error)

    @microbatch
    def fn(items):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
        thread.start()
        thread.join(PATIENCE)
        return items

    assert 1 == fn(1)
    assert 1 == len(errors)
