"""Faults of a production process: no memory, no stack, no thread, an import that is not complete, a fork."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import weakref
from concurrent.futures import wait
from types import ModuleType

import pytest

from batchify import BatcherClosedError, ReentrantCallError, SyncMicrobatcher, microbatch
from batchify._batcher.line import Line
from batchify._batcher.live import configure_lock
from batchify._core.queue import PlainQueue
from batchify._threads import workers
from batchify._threads.batcher import look_for_loop
from batchify._threads.engine import DeferredActions, ThreadEngine
from batchify._threads.waiters import FutureWaiter, new_waiter
from tests.kit.columns import in_time
from tests.kit.engines import HOUR, PATIENCE, Gate, doubled, wait_until
from tests.kit.processes import printed, printed_by

# How a worker is woken where an error occurs.
WAKES = {RecursionError: (workers.Worker, "wake"), MemoryError: (workers.Workers, "wake_one")}


class Spied:
    """A batch function that records the threads that run it."""

    def __init__(self):
        self.threads = set()
        self._running = threading.Lock()

    def __call__(self, items):
        assert self._running.acquire(blocking=False), "two batches at once"
        self.threads.add(threading.get_ident())
        answers = doubled(items)
        self._running.release()
        return answers


def recurse(call, n):
    """Call at each depth, up to the limit of recursion."""
    call(n)
    recurse(call, n + 1)


@pytest.mark.untraced
@pytest.mark.parametrize("way", ["submit", "_submit_nowait", "_change", "flush", "first call"])
def test_a_call_at_the_limit_of_recursion(way):
    """The step at the limit raises RecursionError; the function goes on, on one thread, with all other callers."""
    spied = Spied()
    batcher = SyncMicrobatcher(spied, batch_wait_timeout_s=0)
    if way != "first call":
        assert 2 == batcher.submit(1)
    steps = {
        "_change": lambda n: batcher._change({"max_size": 8 + n % 2}),
        "flush": lambda n: batcher.flush(),
        "first call": lambda n: batcher.submit(n) if sys.getrecursionlimit() - n < 400 else None,
    }
    with pytest.raises(RecursionError):
        in_time(lambda: recurse(steps.get(way) or getattr(batcher, way), 1))
    assert [42, 44] == in_time(lambda: [batcher.submit(21), batcher.submit(22)])
    wait_until(lambda: not batcher.stats.pending + batcher.stats.running)
    assert 1 == len(spied.threads)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_thread_that_fails_to_start_once(monkeypatch, error, moment):
    """The call that would start the first worker gets the error; the next call starts one, and only that one runs."""
    spied = Spied()
    batcher = SyncMicrobatcher(spied, batch_wait_timeout_s=0)

    class Failing(threading.Thread):
        def start(self):
            monkeypatch.undo()
            if moment == "after":
                super().start()
            raise error

    monkeypatch.setattr(workers, "Thread", Failing)
    with pytest.raises(error):
        in_time(lambda: batcher.submit(1))
    assert 4 == in_time(lambda: batcher.submit(2))
    batcher.close()
    assert (1, 1, 1) == (len(spied.threads), batcher.stats.answered_items, batcher.stats.cancelled_items)


def test_a_thread_that_never_starts_keeps_nothing_alive(monkeypatch):
    """CPython keeps a thread for ever whose start a signal handler has interrupted, but not the batcher with it."""
    kept = []

    def interrupted(thread):
        monkeypatch.undo()
        kept.append(thread)
        raise Interrupted

    monkeypatch.setattr(workers.Thread, "start", interrupted)
    batcher = SyncMicrobatcher(doubled)
    with pytest.raises(Interrupted):
        batcher.submit(1)
    weak = weakref.ref(batcher._engine)
    del batcher
    gc.collect()
    assert weak() is None


def test_a_second_thread_that_fails_to_start_once(monkeypatch):
    """A slot is not lost when its thread could not be started."""
    gate = Gate(doubled)
    gate.shut()
    batcher = SyncMicrobatcher(gate, 1, 0, concurrency=2)
    first = batcher._submit_nowait(1)
    gate.await_batch()

    def fail(thread):
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(workers.Thread, "start", fail)
    with pytest.raises(MemoryError):
        batcher._submit_nowait(2)
    third = batcher._submit_nowait(3)
    gate.await_batch()
    gate.open()
    assert [2, 6] == [first.result(PATIENCE), third.result(PATIENCE)]


def test_a_thread_that_dies_as_it_waits_is_replaced(monkeypatch):
    """The next call is answered, although the only worker died between two steps."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=0)
    wait_at = workers.Worker.wait

    def fail(worker, seconds):
        monkeypatch.setattr(workers.Worker, "wait", wait_at)
        raise MemoryError

    died = []
    monkeypatch.setattr(threading, "excepthook", lambda args: died.append(args.exc_type))
    monkeypatch.setattr(workers.Worker, "wait", fail)
    assert [2, 4] == in_time(lambda: [batcher.submit(1), batcher.submit(2)])
    assert [MemoryError] == died


class Interrupted(BaseException):
    """Raised as if by the handler of a signal."""


@pytest.mark.parametrize(
    ("owner", "name", "act"),
    [
        (FutureWaiter, "add_done_callback", lambda batcher, first: batcher._submit_nowait(2)),
        (Line, "leave", lambda batcher, first: batcher._submit_nowait(2).cancel()),
        (ThreadEngine, "arrived", lambda batcher, first: batcher.submit(2)),
    ],
)
@pytest.mark.parametrize("is_woken", [False, True])
def test_an_interrupted_call_leaves_the_queue(monkeypatch, owner, name, act, is_woken):
    """A worker withdraws its item, also one that is woken already, and the other calls wait on."""
    gate = Gate(doubled)
    # The arrival that fills a batch matters.
    batcher = SyncMicrobatcher(gate, 2 if name == "arrived" else 3, HOUR)
    first = batcher._submit_nowait(1)
    engine = batcher._engine
    wait_until(lambda: engine.workers.idle)
    wake_idle = engine.workers.wake_idle

    def already_woken():
        wake_idle()
        raise RuntimeError

    def interrupt(*args, **options):
        monkeypatch.undo()
        if is_woken:
            engine.workers.wake_idle = already_woken
        raise Interrupted

    monkeypatch.setattr(owner, name, interrupt)
    with pytest.raises(Interrupted):
        in_time(lambda: act(batcher, first))
    wait_until(lambda: (1, 1) == (batcher.stats.pending, batcher.stats.cancelled_items))
    batcher.flush()
    assert 2 == first.result(PATIENCE)
    assert [[1]] == gate.batches


def test_a_call_that_is_interrupted_just_before_the_worker_rests(monkeypatch):
    """The worker withdraws its item, although the call found no idle worker to wake."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=0)
    rest = workers.Workers.rest

    def interrupted(idle, worker):
        monkeypatch.undo()
        # As in the call.
        engine = batcher._engine
        engine.abandoned += (new_waiter(),)
        idle.waker = engine
        idle.wake_idle()
        rest(idle, worker)

    monkeypatch.setattr(workers.Workers, "rest", interrupted)
    assert 2 == batcher.submit(1)
    wait_until(lambda: not batcher._engine.abandoned and batcher._engine.workers.waker is None)


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_worker_that_cannot_be_woken_at_once(monkeypatch, error):
    """Items wait for the next step of the worker. A step at the limit of recursion is completed then."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    first = batcher._submit_nowait(1)
    wait_until(lambda: batcher._engine.workers.idle)

    def fail(*args):
        monkeypatch.undo()
        raise error

    owner, name = WAKES[error]
    monkeypatch.setattr(owner, name, fail)
    if error is RecursionError:
        with pytest.raises(RecursionError):
            batcher.flush()
    else:
        batcher.flush()
        batcher.flush()
    assert 2 == first.result(PATIENCE)


def test_a_signal_at_the_limit_of_recursion():
    """It is not lost without notice."""
    worker = workers.Worker(Gate(doubled), 0)

    def fail():
        raise RecursionError

    worker.release = fail
    with pytest.raises(RecursionError):
        worker.wake(None)


@pytest.mark.parametrize("has_taken", [True, False])
def test_a_finalizer_that_is_interrupted_as_it_takes_the_lock(has_taken):
    """The lock is free afterwards, and the action is not lost."""
    lock, ran = threading.RLock(), []

    class Interrupting:
        release = lock.release

        def acquire(self, *, blocking):
            if has_taken:
                lock.acquire(blocking=blocking)
            raise Interrupted

    deferred = DeferredActions(Interrupting(), lock._is_owned, pytest.fail)
    with pytest.raises(Interrupted):
        deferred.request(lambda: ran.append("ran"))
    assert not lock._is_owned()
    deferred.run()
    assert ["ran"] == ran


def test_a_caller_that_leaves_inside_the_engine():
    """It leaves as soon as the interrupted code has released the lock."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    future = batcher._submit_nowait(1)
    engine = batcher._engine
    with engine.deferred, engine._lock:
        engine.leave(0, future)
        assert 1 == batcher.stats.pending
    assert (0, 1) == (batcher.stats.pending, batcher.stats.cancelled_items)


def test_a_first_call_that_interrupts_the_first_call():
    """Both use the same engine."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=0)

    def build(*arguments):
        del batcher._engine_kind
        assert 2 == batcher.submit(1)
        return ThreadEngine(*arguments)

    batcher._engine_kind = build
    assert 4 == in_time(lambda: batcher.submit(2))
    assert 2 == batcher.stats.answered_items


def test_a_worker_that_dies_is_replaced(monkeypatch):
    """An error in the engine itself ends its worker, and another one answers all callers that wait."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    future = batcher._submit_nowait(1)
    engine = batcher._engine
    wait_until(lambda: engine.workers.idle)

    def fail(queue, now):
        monkeypatch.setattr(PlainQueue, "take", take)
        raise MemoryError

    died, take = [], PlainQueue.take
    monkeypatch.setattr(threading, "excepthook", lambda args: died.append(args.exc_type))
    monkeypatch.setattr(PlainQueue, "take", fail)
    batcher.flush()
    assert 2 == future.result(PATIENCE)
    wait_until(lambda: died == [MemoryError])
    assert 1 == len(engine.workers.all)


@pytest.mark.untraced
def test_the_error_of_an_interrupted_call_reaches_no_later_call():
    """A caller that is interrupted just as its error arrives never gets it from another function."""
    failing = SyncMicrobatcher(lambda items: 1 / 0, batch_wait_timeout_s=0)
    double = SyncMicrobatcher(doubled, batch_wait_timeout_s=0)

    class Interrupted(BaseException):
        pass

    def interrupt(frame, event, arg):
        # From the last attempt on, the caller has its answer.
        if event == "c_return" and arg.__name__ == "acquire" and failing.stats.failed_items:
            raise Interrupted

    def call():
        sys.setprofile(interrupt)
        try:
            failing.submit(1)
        except Interrupted:
            sys.setprofile(None)
        return [double.submit(item) for item in (1, 2, 3)]

    assert [2, 4, 6] == in_time(call)


def test_a_call_while_another_thread_imports_asyncio(monkeypatch):
    """The module may exist without its functions yet; then the calling thread runs no loop."""
    monkeypatch.setattr("batchify._threads.batcher.running_loop", look_for_loop)
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    double = microbatch(doubled)
    assert (2, [4], 6) == (double(1), double.map([2]), double.submit(3).result(PATIENCE))


def test_a_call_that_interrupts_one_that_times_its_window(monkeypatch):
    """A signal handler makes a call in the thread that keeps the time of a window. Both calls are answered."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=0.01)
    assert 2 == batcher.submit(1)
    closed = SyncMicrobatcher(doubled)
    closed.close()
    arrived, answers = ThreadEngine.arrived, []

    def interrupted(engine, *arguments):
        seconds = arrived(engine, *arguments)
        if seconds > 0 and not answers:
            answers.append("interrupted")
            with pytest.raises(BatcherClosedError):
                closed.submit(1)
            answers.append(batcher.submit(2))
        return seconds

    monkeypatch.setattr(ThreadEngine, "arrived", interrupted)
    assert 6 == in_time(lambda: batcher.submit(3))
    assert ["interrupted", 4] == answers
    batcher.stop()


def test_options_changed_while_another_thread_changes_them():
    """A change never waits for the engine, so a signal handler may make one, and the last change applies."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    first = batcher._submit_nowait(1)
    engine = batcher._engine
    entered, free = threading.Event(), threading.Event()

    def interrupted():
        """Hold the engine, as the main thread does when a signal handler interrupts it."""
        with engine.deferred, engine._lock:
            entered.set()
            assert free.wait(PATIENCE)
            with configure_lock:
                batcher._change({"max_size": 3})

    holder = threading.Thread(target=interrupted)
    holder.start()
    assert entered.wait(PATIENCE)

    def change():
        with configure_lock:
            batcher._change({"max_size": 1})
            free.set()

    in_time(change)
    holder.join(PATIENCE)
    assert (3, 3) == (batcher._config.max_size, engine.line.config.max_size)
    assert 1 == batcher.stats.pending
    batcher._change({"max_size": 1})
    assert 2 == first.result(PATIENCE)


def test_a_first_request_while_the_plain_queue_opens():
    """A call with a priority does not join the plain queue that another thread opens just then."""
    opened, read = threading.Event(), threading.Event()

    class Paused(ThreadEngine):
        """While ``configure()`` is at its end, another thread is in the middle of ``_open_plain()``."""

        @property
        def plain(self):
            read.set()
            return self._plain

        @plain.setter
        def plain(self, queue):
            self._plain = queue
            if queue is not None:
                opened.set()
                assert read.wait(PATIENCE)
            elif self._prepare is not None and not opened.is_set():
                read.clear()
                threading.Thread(target=self.open).start()
                assert opened.wait(PATIENCE)

        def apply_config(self):
            read.set()
            super().apply_config()

    double = microbatch(doubled)
    batcher = double._self_route.find()
    batcher._engine_kind = Paused
    read.set()
    assert 2 == double(1)
    wait_until(lambda: not double.batch_stats.running)
    opened.clear()
    assert 4 == double.options(priority=1)(2)


def test_a_change_that_interrupts_another_one(monkeypatch):
    """A signal handler that changes options in the middle of a change loses neither."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    batcher.start()
    configure = batcher._engine.configure

    def interrupted(config):
        monkeypatch.undo()
        configure(config)
        batcher._change({"concurrency": 2})

    monkeypatch.setattr(batcher._engine, "configure", interrupted)
    batcher._change({"max_size": 1})
    config = batcher._engine.line.config
    assert batcher._config is config
    assert (1, 2) == (config.max_size, config.concurrency)


def test_a_finalizer_that_calls_another_instance_while_its_family_counts(monkeypatch):
    """Instances share the lock of their counters, so such a call is refused: it would wait for its own thread."""

    class Owner:
        @microbatch
        def double(self, items):
            return doubled(items)

    one, other = Owner(), Owner()
    assert (2, 2) == (one.double(1), other.double(1))
    errors, withdraw = [], PlainQueue.withdraw

    def interrupted(queue, mark, waiter):
        monkeypatch.undo()
        with pytest.raises(ReentrantCallError) as caught:
            other.double(2)
        errors.append(str(caught.value))
        return withdraw(queue, mark, waiter)

    one.double.configure(timeout=HOUR)
    future = one.double.submit(3)
    monkeypatch.setattr(PlainQueue, "withdraw", interrupted)
    in_time(future.cancel)
    assert 1 == len(errors)
    assert {future} == wait([future], PATIENCE).done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_of_a_fork_leaves_what_it_inherited():
    """It cancels futures and closes streams, although the threads that held their locks are gone."""
    script = """
        import os, signal, threading
        from batchify import microbatch

        @microbatch(timeout=3600)
        def double(items):
            return items

        @microbatch(timeout=3600)
        def stream(items):
            yield items

        future, open_stream = double.submit(1), stream.submit(2)
        held = threading.Semaphore(0)

        def hold(lock):
            with lock:
                held.release()
                threading.Event().wait()

        engines = [fn._self_route.find()._engine for fn in (double, stream)]
        locks = [future._condition, *(engine._lock for engine in engines), *(e.line.stats.lock for e in engines)]
        for lock in locks:
            threading.Thread(target=hold, args=(lock,), daemon=True).start()
            held.acquire()
        child = os.fork()
        if not child:
            signal.alarm(20)
            print(future.cancel(), open_stream.close(), flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        os._exit(0)
    """
    assert "True None\n0\n" == printed_by(script.replace("os.fork()", FORK))


# From Python 3.12 on, a fork beside threads is a warning.
FORK = "__import__('warnings').simplefilter('ignore') or os.fork()"
CHILD = """
import multiprocessing
import sys
import threading
from batchify import microbatch

@microbatch(timeout=3600)
def double(items):
    print("ran", items, flush=True)
    return items

def submit():
    double.submit(1)

def call():
    threading.main_thread().join()
    double(2)

def leave_a_thread():
    double.configure(timeout=0)
    double(1)
    threading.Thread(target=call).start()

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=globals()[sys.argv[2]])
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_process_runs_what_it_submitted(method, tmp_path):
    """A child of multiprocessing ends without the hooks of atexit, but not before its items and threads have run."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    assert "ran [1]\n" == printed(str(script), method, "submit")
    assert "ran [1]\nran [2]\n" == printed(str(script), method, "leave_a_thread")
