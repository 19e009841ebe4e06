"""The thread engine."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError, InvalidStateError, as_completed, wait

import pytest

from batchify import (
    BatchAbortedError,
    BatcherClosedError,
    ReentrantCallError,
    SyncMicrobatcher,
    microbatch,
)
from batchify._core.timing import Adaptive
from batchify._threads import workers as _workers
from batchify._threads.engine import ThreadEngine
from batchify._threads.workers import WakeSignal
from tests.kit.engines import PATIENCE, Gate, Threads, doubled, failing, wait_until


@pytest.fixture
def kit():
    """Callers that block, each in a thread of its own."""
    kit = Threads()
    yield kit
    kit.close()


def workers(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def test_one_thread_runs_all_batches(kit):
    """With ``concurrency=1`` the function runs on one and the same thread, which bears its name."""
    seen = set()
    double, _ = kit.decorate(lambda items: seen.add(threading.current_thread()) or items, max_size=1, name="one thread")
    kit.results(kit.call_waiting(double, *range(20)))
    assert ["one thread-0"] == [thread.name for thread in seen]


def test_a_lone_caller_waits_for_its_window(kit):
    """With a fixed window a lone caller is answered when the window is over."""
    double, _ = kit.decorate(timeout=0.05)
    assert 2 == kit.call(double, 1).result(PATIENCE)
    assert 1 == double.batch_stats.reasons["timeout"]
    assert 50 <= double.batch_stats.wait_ms.max


def test_no_thread_before_the_first_call(kit):
    """Decorating a function and looking at its numbers starts no thread."""
    before = threading.active_count()
    double, _ = kit.decorate()
    assert 0 == double.batch_stats.total_items
    assert before == threading.active_count()


def test_a_dropped_function_ends_its_thread():
    """When the last reference to a function is gone, its thread ends."""
    double = microbatch(doubled, name="dropped")
    assert 2 == double(1)
    assert 1 == len(workers("dropped"))
    del double
    wait_until(lambda: gc.collect() >= 0 and not workers("dropped"))


def test_a_dropped_function_answers_what_it_owes():
    """A function that is dropped while an item waits for its batch still answers it, and then ends its thread."""
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
    """What was submitted is answered, although nobody holds the function any more when its thread begins."""
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
    """The same, if the thread was there and waited."""
    locks = []

    class Slow:
        """A lock that lets those go late who waited for it."""

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

        def __enter__(self):
            self._lock.acquire()

        def __exit__(self, *error):
            self._lock.release()

    monkeypatch.setattr("batchify._threads.workers.Lock", Slow)
    double = microbatch(doubled)
    assert 2 == double(1)
    idle = double._self_batcher().engine.workers.idle
    wait_until(lambda: idle)
    for lock in locks:
        lock.go_on.clear()
    future = double.submit(2)
    del double
    gc.collect()
    for lock in locks:
        lock.go_on.set()
    assert 4 == future.result(PATIENCE)


def test_a_dropped_function_whose_callers_left_ends_its_thread():
    """A worker that waited for the time of an item does not wait on when nobody else is there."""
    echo = microbatch(lambda items: items, timeout=3600, name="left")
    future = echo.submit(1)
    # The worker waits for the window.
    idle = echo._self_batcher().engine.workers.idle
    wait_until(lambda: idle)
    future.cancel()
    del echo, future
    wait_until(lambda: gc.collect() >= 0 and not workers("left"))


def test_a_dropped_instance_ends_its_thread():
    """When an instance is gone, so is the thread of its decorated method; the class keeps the numbers."""

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
    """When no thread can be started the call fails, and the next call tries again."""
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
    """Without a second worker, the first one comes to what waits, also when it finds that out itself."""
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


def test_the_next_worker_sees_to_the_rest(kit):
    """A worker that takes a batch wakes another one for what else may leave."""
    double, gate = kit.decorate(concurrency=2, timeout=3600, max_size=2)
    gate.shut()
    callers = kit.call_waiting(double, 1, 2)
    gate.await_batch()
    callers += kit.call_waiting(double, 3)
    double.flush()
    gate.await_batch()
    gate.open()
    assert [2, 4, 6] == kit.results(callers)


def test_who_was_just_answered_may_come_back(kit, monkeypatch):
    """Two callers that call again as soon as they have an answer stay together, though nobody has to wait for them."""
    double, gate = kit.decorate()
    given = []

    def yield_to_callers(seconds):
        given.append(seconds)
        if len(given) == 2:
            wait_until(lambda: double.batch_stats.pending == 2)

    monkeypatch.setattr("batchify._threads.engine.sleep", yield_to_callers)
    gate.shut()
    opener = kit.call(double, 0)
    gate.await_batch()

    def call_twice(item):
        return [double(item), double(item)]

    callers = [kit.call(call_twice, item) for item in (1, 2)]
    wait_until(lambda: double.batch_stats.pending == 2)
    gate.open()
    assert [0, [2, 2], [4, 4]] == kit.results([opener, *callers])
    assert [[0], [1, 2], [1, 2]] == [sorted(batch) for batch in gate.batches]
    assert len(given) >= 2


def test_no_way_is_given_where_nobody_can_come(kit, monkeypatch):
    """Neither after a caller who is alone, nor while a full batch waits."""
    double, gate = kit.decorate(max_size=2)
    given = []
    monkeypatch.setattr("batchify._threads.engine.sleep", given.append)
    gate.shut()
    callers = kit.call_waiting(double, 0)
    gate.await_batch()
    callers += kit.call_waiting(double, 1, 2, 3, 4)
    gate.open()
    assert [0, 2, 4, 6, 8] == kit.results(callers)
    # The one thread is through with the others by then.
    assert [10, 12] == [double(5), double(6)]
    assert [0] == given


def test_a_future_can_be_cancelled_until_its_batch_leaves(kit):
    """``Future.cancel()`` works while the item waits, and no longer when it runs, as ``concurrent.futures`` has it."""
    double, gate = kit.decorate()
    gate.shut()
    running = double.submit(1)
    gate.await_batch()
    waiting = double.submit(2)
    assert (False, True) == (running.cancel(), waiting.cancel())
    gate.open()
    assert 2 == running.result(PATIENCE)
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE)


def test_a_future_cancelled_at_the_last_moment_is_not_run(kit, monkeypatch):
    """A future that is cancelled between the departure of its batch and its run is dropped from the batch."""
    double, gate = kit.decorate(timeout=3600)
    gone, stays = double.submit(1), double.submit(2)
    depart = ThreadEngine._depart

    def cancel_first(self, batch):
        gone.cancel()
        return depart(self, batch)

    monkeypatch.setattr(ThreadEngine, "_depart", cancel_first)
    double.flush()
    assert 4 == stays.result(PATIENCE)
    assert [[2]] == gate.batches
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.answered_items)


def test_a_batch_whose_callers_all_left_at_the_last_moment_is_not_run(kit, monkeypatch):
    """When nobody is left at its departure, a batch is dropped whole and its slot is free."""
    double, gate = kit.decorate(timeout=3600)
    gone = double.submit(1)
    depart = ThreadEngine._depart

    def cancel_all(self, batch):
        gone.cancel()
        return depart(self, batch)

    monkeypatch.setattr(ThreadEngine, "_depart", cancel_all)
    double.close()
    assert [] == gate.batches
    assert 1 == double.batch_stats.cancelled_items


def test_waiting_for_a_future_may_time_out(kit):
    """``result(timeout)`` that runs out leaves the item where it is."""
    double, gate = kit.decorate()
    gate.shut()
    future = double.submit(1)
    with pytest.raises(TimeoutError if sys.version_info >= (3, 11) else Exception):
        future.result(0)
    gate.open()
    assert 2 == future.result(PATIENCE)


def test_a_future_that_its_owner_answered_is_left_alone(kit):
    """A future that somebody else has set is not touched, and its neighbour is answered."""
    double, gate = kit.decorate(timeout=3600)
    mine, other = double.submit(1), double.submit(2)
    gate.shut()
    double.flush()
    gate.await_batch()
    mine.set_result("mine")
    gate.open()
    assert ("mine", 4) == (mine.result(PATIENCE), other.result(PATIENCE))
    with pytest.raises(InvalidStateError):
        mine.set_result(1)


@pytest.mark.parametrize("mark", [False, True], ids=["still pending", "marked as running"])
def test_a_future_that_its_owner_answered_while_it_waits(kit, mark, caplog):
    """A future that somebody else has set before its batch leaves harms neither its neighbour nor the worker."""
    double, _ = kit.decorate(timeout=3600)
    mine, other = double.submit(1), double.submit(2)
    if mark:
        mine.set_running_or_notify_cancel()
    mine.set_result("mine")
    double.flush()
    assert ("mine", 4) == (mine.result(PATIENCE), other.result(PATIENCE))
    # concurrent.futures complains of what its owner has done.
    assert ["concurrent.futures"] == [record.name for record in caplog.records]


def test_a_future_that_its_owner_marked_as_running_is_answered(kit, caplog):
    """A future that somebody else has marked as running is answered all the same."""
    double, _ = kit.decorate(timeout=3600)
    future = double.submit(1)
    future.set_running_or_notify_cancel()
    double.flush()
    assert 2 == future.result(PATIENCE)
    assert ["concurrent.futures"] == [record.name for record in caplog.records]


@pytest.mark.parametrize("renewed", [False, True], ids=["same", "renewed"])
def test_who_waits_for_a_cancelled_future_is_told(kit, renewed):
    """``concurrent.futures.wait`` and ``as_completed`` return a future that was cancelled while it waited."""
    double, _ = kit.decorate(timeout=3600)
    future = double.submit(1)
    if renewed:
        # As in the child of a fork: no batch will have it.
        double._self_batcher().reset_after_fork()
    assert future.cancel()
    assert {future} == wait([future], PATIENCE).done
    assert [future] == list(as_completed([future], PATIENCE))


def test_a_callback_that_raises_harms_nobody(kit, caplog):
    """What the callback of a future raises past ``concurrent.futures`` is logged, and the others are answered."""
    double, gate = kit.decorate(timeout=3600)
    first, second = double.submit(1), double.submit(2)

    def leave(_):
        raise SystemExit

    first.add_done_callback(leave)
    double.flush()
    assert [2, 4] == [first.result(PATIENCE), second.result(PATIENCE)]
    assert ["a callback of a future raised"] == [record.message for record in caplog.records]


def test_a_callback_that_would_wait_for_its_own_thread(kit):
    """A callback of a future may submit and close; a blocking call, which could not return, is an error at once."""
    double, gate = kit.decorate()
    gate.shut()
    done = []

    def call(_):
        try:
            double(2)
        except ReentrantCallError as error:
            done.append(error)
        done.append(double.submit(3))
        double.close()

    first = double.submit(1)
    first.add_done_callback(call)
    gate.open()
    wait_until(lambda: len(done) == 2)
    assert isinstance(done[0], ReentrantCallError)
    assert 6 == done[1].result(PATIENCE)


def test_map_returns_results_in_order(kit):
    """``map`` returns all results, in order; after an error what still waits is taken out."""
    double, _ = kit.decorate(max_size=2)
    assert [2, 4, 6] == double.map([1, 2, 3])
    assert [] == double.map([])


def test_map_takes_out_what_waits_after_an_error(kit):
    """After the first error of ``map``, what still waits is never run."""

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


def test_base_exceptions_reach_the_callers_and_the_worker_lives(kit):
    """``SystemExit`` in a batch function is delivered to its callers, and the same thread runs the next batch."""
    threads = set()

    def leave(items):
        threads.add(threading.current_thread())
        if items == [1]:
            raise SystemExit(3)
        return items

    double, _ = kit.decorate(leave)
    assert 3 == kit.call(double, 1).exception(PATIENCE).code
    assert 2 == kit.call(double, 2).result(PATIENCE)
    assert 1 == len(threads)


async def test_a_base_exception_does_not_end_the_task_of_a_caller():
    """Callers on a loop are told that their batch was aborted when a worker raised ``KeyboardInterrupt``."""

    @microbatch
    def interrupt(items):
        raise KeyboardInterrupt

    with pytest.raises(BatchAbortedError) as caught:
        await interrupt.acall(1)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)


def test_an_exception_leaves_no_frame_alive():
    """When callers have dealt with their exception, nothing of the batch is kept alive by it, without a collection."""
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


def test_stop_iteration_is_a_runtime_error(kit):
    """``StopIteration`` reaches callers as a ``RuntimeError`` caused by it."""

    def stop(items):
        raise StopIteration

    error = kit.call(kit.decorate(stop)[0], 1).exception(PATIENCE)
    assert (RuntimeError, StopIteration) == (type(error), type(error.__cause__))


def test_batches_run_in_a_neutral_context(kit):
    """Nothing of the context of a caller is visible in a batch, and nothing of a batch in the next one."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    def look(items):
        seen.append(tenant.get())
        tenant.set("batch")
        return items

    double, _ = kit.decorate(look)
    tenant.set("caller")
    double(1)
    double(2)
    assert ["nobody", "nobody"] == seen


def test_tasks_of_several_loops_and_threads_share_a_batch(kit):
    """Calls of a ``def`` function from threads and from several loops travel together."""
    double, gate = kit.decorate()
    gate.shut()
    first = kit.call_waiting(double, 0)
    gate.await_batch()
    others = []
    for n in (1, 2):
        others.append(kit.call(asyncio.run, double.acall(n)))
        wait_until(lambda: double.batch_stats.pending == n)  # noqa: B023  # it is called before the loop goes on
    others += kit.call_waiting(double, 3)
    gate.open()
    assert [0, 2, 4, 6] == kit.results(first + others)
    assert [[0], [1, 2, 3]] == gate.batches


async def test_a_cancelled_task_is_taken_out_of_the_line():
    """Cancelling a task that waits for a ``def`` function takes its item out."""
    double = microbatch(doubled, timeout=3600)
    gone, stays = asyncio.ensure_future(double.acall(1)), asyncio.ensure_future(double.acall(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert (1, 1) == (double.batch_stats.pending, double.batch_stats.cancelled_items)
    double.flush()
    assert 4 == await stays


async def test_a_task_cancelled_while_its_batch_runs_harms_nobody():
    """The result for a cancelled task is dropped; its neighbour gets its own."""
    gate = Gate(doubled)
    double = microbatch(gate, timeout=3600)
    gate.shut()
    gone, stays = asyncio.ensure_future(double.acall(1)), asyncio.ensure_future(double.acall(2))
    await asyncio.sleep(0)
    double.flush()
    gate.await_batch()
    gone.cancel()
    await asyncio.sleep(0)
    gate.open()
    assert 4 == await stays
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.answered_items)


def test_an_answer_for_a_loop_that_is_gone_is_dropped(kit):
    """A loop that was closed while its item ran does not keep the others from their answers."""
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


async def test_aclose_does_not_block_the_loop():
    """``aclose()`` of a ``def`` function lets the loop run while it waits."""
    gate = Gate(doubled)
    double = microbatch(gate)
    gate.shut()
    caller = asyncio.ensure_future(double.acall(1))
    await asyncio.sleep(0)
    gate.await_batch()
    closing = asyncio.ensure_future(double.aclose())
    await asyncio.sleep(0)
    gate.open()
    await closing
    assert 2 == await caller


def test_a_caller_interrupted_while_it_waits():
    """Ctrl-C reaches the main thread while it is blocked in a call, and its item is taken out."""
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
            # Again and again: CPython does not notice a signal that comes just before a thread blocks.
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
    assert "interrupted\n2 1 {1: 1}\n" == run(script)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal that Windows does not have")
def test_a_call_within_a_call(kit):
    """A signal handler that calls the function while its thread is blocked in it gets its own answer."""
    double, gate = kit.decorate()
    inner = []
    gate.shut()

    def handler(*_):
        # One is enough. Another one, noted while the main thread is blocked, makes Python 3.11 hang: a thread that is
        # traced, as for coverage, does not leave the start of a function as long as a signal is to be handled.
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
        # One that has come meanwhile is dropped.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, before)
    assert [4] == inner


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal that Windows does not have")
def test_a_signal_handler_that_raises():
    """What a signal handler raises in a blocked call ends the call, and its item is never run."""
    gate = Gate(doubled)
    double = microbatch(gate, timeout=3600)
    main = threading.get_ident()

    raised = []

    def wake_ticket(*_):
        if not raised:
            raised.append(True)
            raise TimeoutError

    def interrupt():
        # The last line that this thread runs before it blocks is in submit().
        wait_until(lambda: double.batch_stats.pending and sys._current_frames()[main].f_code.co_name == "submit")
        wait_until(lambda: signal.pthread_kill(main, signal.SIGUSR1) or raised)

    before = signal.signal(signal.SIGUSR1, wake_ticket)
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


def test_a_bell_that_rings_when_the_time_is_over():
    """A worker that is rung just after it stopped waiting takes the ring with it, and does not wake for it later."""
    engine = SyncMicrobatcher(doubled).engine
    bell = WakeSignal()
    engine.workers.idle.append(bell)
    assert not bell.wait_for(0)
    engine.workers.ring(engine, 1)
    engine.workers.cancel_wait(bell)
    assert (False, None, []) == (bell.wait_for(0), bell._engine, engine.workers.idle)


async def test_a_failed_batch_leaves_who_has_left_alone():
    """When a batch fails, a task that was cancelled while it ran is not told; the other is."""

    def fail(items):
        raise KeyError

    gate = Gate(fail)
    double = microbatch(gate, timeout=3600)
    gate.shut()
    gone, stays = asyncio.ensure_future(double.acall(1)), asyncio.ensure_future(double.acall(2))
    await asyncio.sleep(0)
    double.flush()
    gate.await_batch()
    gone.cancel()
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(KeyError):
        await stays
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.failed_items)


def test_at_exit_what_was_submitted_is_answered():
    """The interpreter ends after what was submitted is answered, with nothing on its error stream."""
    script = """
        from batchify import microbatch

        @microbatch(timeout=3600)
        def echo(items):
            print("ran", items)
            return items

        future = echo.submit(1)
        future.add_done_callback(lambda f: print("answered", f.result()))
    """
    assert "ran [1]\nanswered 1\n" == run(script)


def test_at_exit_no_window_keeps_a_thread_waiting():
    """A thread that is blocked in a long window when the main thread ends is answered, and the process ends."""
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
    assert "1\n" == run(script)


async def test_a_blocking_call_on_a_loop_warns_in_debug_mode():
    """In asyncio's debug mode a blocking call from a loop's own thread warns, and names what to use."""
    double = microbatch(doubled)
    assert 2 == double(1)
    asyncio.get_running_loop().set_debug(True)
    with pytest.warns(RuntimeWarning) as caught:
        assert 2 == double(1)
    told = "doubled() blocks the event loop that it is called from; use: await doubled.acall(item)"
    assert [(told, __file__)] == [(str(warning.message), warning.filename) for warning in caught]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_has_batchers_of_its_own():
    """After a fork with items waiting and threads alive, both processes answer their own calls, on both engines."""
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
    assert "5\n1 4\n" == run(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_options_change():
    """A fork waits for a change in another thread, so that the child may change options too."""
    script = """
        import os, signal, threading, warnings
        from batchify import microbatch
        from batchify._batcher import registry

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch
        def echo(items):
            return items

        held, leave = threading.Event(), threading.Event()

        def hold():
            with registry.configure_lock:
                held.set()
                leave.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        # The last one that is registered comes first: the lock is held when the fork begins.
        os.register_at_fork(before=leave.set)
        child = os.fork()
        if not child:
            signal.alarm(5)
            os._exit(echo.options(priority=1)(2))
        holder.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), echo.options(priority=1)(4))
    """
    assert "2 4\n" == run(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_locks_are_held():
    """The child of a fork does not wait for locks that threads of the parent held, and the parent is as before."""
    script = """
        import os, threading, warnings
        from batchify import microbatch

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch
        def echo(items):
            return items

        print(echo(1))
        engine = echo._self_batcher().engine
        held, forked = threading.Event(), threading.Event()

        def hold():
            with engine._lock, engine.stats._lock:
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
    assert "1\n3 4 2\n" == run(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_while_counters_are_read():
    """A child has no numbers of instances that are gone, and waits for no lock under which another thread read some."""
    script = """
        import os, signal, threading, warnings
        from batchify import microbatch
        from batchify._batcher.registry import register_for_fork, sources
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
            with Model.run._self_own.counters._lock, totals._lock:
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
    assert "1 1\n4 1 1\n" == run(script)


def run(script):
    """Run a script in a process of its own, and return what it printed; it must end well and complain of nothing."""
    done = subprocess.run(  # our own scripts
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


class TestSyncMicrobatcher:
    """The engine as a class."""

    def test_submit(self):
        """``submit`` blocks for the result for one item, ``submit_many`` for several."""
        with SyncMicrobatcher(doubled) as batcher:
            assert 2 == batcher.submit(1)
            assert [4, 6] == batcher.submit_many([2, 3])
            assert ("doubled", 3) == (batcher.name, batcher.stats.total_items)

    def test_starting_and_stopping(self):
        """The first ``submit`` starts it, ``stop()`` ends it and its thread, ``start()`` opens it again."""
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

    def test_it_takes_no_coroutine_function(self):
        """An ``async def`` function is refused with the name of the class that takes it."""

        async def echo(items):
            return items

        with pytest.raises(TypeError) as caught:
            SyncMicrobatcher(echo, name="echo")
        assert "SyncMicrobatcher runs def functions, and echo is async def; use AsyncMicrobatcher" == str(caught.value)

    def test_its_repr_shows_its_state(self):
        """``repr`` shows the name, whether it is open, and how much there is to do."""
        batcher = SyncMicrobatcher(doubled)
        assert "<SyncMicrobatcher doubled: open, 0 pending, 0 running>" == repr(batcher)
        batcher.stop()
        assert "<SyncMicrobatcher doubled: closed, 0 pending, 0 running>" == repr(batcher)


def test_run_times_are_learnt(monkeypatch):
    """A batch that is over tells the core of its run time, by which batches of several slots keep their distance."""
    learnt = []
    monkeypatch.setattr(Adaptive, "ended", lambda self, run_time, size: learnt.append(size))
    double = microbatch(lambda items: [2 * item for item in items], max_size=3, concurrency=2)
    assert [2, 4, 6] == double.map([1, 2, 3])
    double.close()
    assert 3 == sum(learnt)
