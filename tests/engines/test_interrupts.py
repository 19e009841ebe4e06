"""A finalizer or a signal handler interrupts its own thread inside the thread engine and uses the same batcher."""

from __future__ import annotations

from concurrent.futures import CancelledError, wait
from threading import Event, RLock, Thread

import pytest

from batchify import QueueFullError, ReentrantCallError, SyncMicrobatcher, microbatch
from batchify._batcher.line import Line
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from batchify._core.slots import Slots
from batchify._threads.engine import DeferredActions
from batchify.testing import inline
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, Gate, doubled, wait_until

HOUR = 3600
# Actions of an interrupt on a batcher and on a future that is queued in it, and the end of that future.
ACTIONS = {
    "flushes": (lambda batcher, future: batcher.flush(), 2),
    "closes": (lambda batcher, future: batcher.close(), 2),
    "reads": (lambda batcher, future: batcher.waiting() and batcher.stats, 2),
    "configures": (lambda batcher, future: batcher._change({"max_size": 8}), 2),
    "cancels": (lambda batcher, future: future.cancel(), CancelledError),
}
# Calls that hold the lock of the engine, each with a method of the queue that it uses meanwhile.
CALLS = {
    "submit": (Line, "add", lambda batcher, other: batcher._submit_nowait(3)),
    "waiting": (PlainQueue, "entries", lambda batcher, other: batcher.waiting()),
    "cancel": (PlainQueue, "withdraw", lambda batcher, other: other.cancel()),
    "flush": (Slots, "flush", lambda batcher, other: batcher.flush()),
    "configure": (Slots, "change", lambda batcher, other: batcher._change({"max_size": 8})),
}


def ended(future):
    """Return the end of a future that is done."""
    try:
        return future.result(0)
    except BaseException as error:
        return type(error)


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that lets an action interrupt the next use of a method or property of a class."""

    def interrupt(owner, name, action):
        attribute = vars(owner)[name]

        def interrupted(self, *arguments):
            monkeypatch.setattr(owner, name, attribute)
            action()
            return attribute.fget(self) if isinstance(attribute, property) else attribute(self, *arguments)

        monkeypatch.setattr(owner, name, property(interrupted) if isinstance(attribute, property) else interrupted)

    return interrupt


@pytest.mark.parametrize("how", ACTIONS)
def test_an_interrupt_does_not_wait_for_the_call_that_it_interrupts(how, interrupt):
    """An interrupt may use the batcher; an action that is impossible under the lock runs when the call returns."""
    action, expected = ACTIONS[how]
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    first = batcher._submit_nowait(1)
    interrupt(Line, "add", lambda: action(batcher, first))
    second = in_time(lambda: batcher._submit_nowait(2))
    batcher.flush()
    assert {first, second} == wait([first, second], PATIENCE).done
    assert (expected, 4) == (ended(first), ended(second))


@pytest.mark.parametrize("call", CALLS)
def test_no_call_loses_the_action_of_an_interrupt(call, interrupt):
    """The action of an interrupt runs after any interrupted call, even if no other code uses the batcher."""
    owner, name, use = CALLS[call]
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    first, other = batcher._submit_nowait(1), batcher._submit_nowait(2)
    interrupt(owner, name, batcher.close)
    in_time(lambda: use(batcher, other))
    # A worker may run the action.
    wait_until(lambda: not batcher.is_running)
    assert 2 == first.result(PATIENCE)


def test_closing_loses_no_action_of_an_interrupt(interrupt):
    """An interrupt of ``close()`` may cancel a future, and its item is not run."""
    gate = Gate(doubled)
    batcher = SyncMicrobatcher(gate, batch_wait_timeout_s=HOUR)
    first, second = batcher._submit_nowait(1), batcher._submit_nowait(2)
    interrupt(PlainQueue, "waiting", first.cancel)
    in_time(batcher.close)
    assert {first, second} == wait([first, second], PATIENCE).done
    assert [[2]] == gate.batches


def test_a_call_that_fails_loses_no_action_of_an_interrupt(interrupt):
    """An action runs also when the interrupted call is refused."""
    gate = Gate(doubled)
    gate.shut()
    batcher = SyncMicrobatcher(gate, max_pending=1, on_full="raise")
    running, queued = batcher._submit_nowait(1), None
    gate.await_batch()
    queued = batcher._submit_nowait(2)
    interrupt(GroupedQueue, "is_full", queued.cancel)
    with pytest.raises(QueueFullError):
        in_time(lambda: batcher._submit_nowait(3))
    assert {queued} == wait([queued], PATIENCE).done
    gate.open()
    assert 2 == running.result(PATIENCE)


def test_an_interrupt_that_raises_loses_no_action(interrupt):
    """A signal handler may flush a batcher and then raise ``KeyboardInterrupt``."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    first = batcher._submit_nowait(1)

    def flush_and_raise():
        batcher.flush()
        raise KeyboardInterrupt

    interrupt(Line, "add", flush_and_raise)
    with pytest.raises(KeyboardInterrupt):
        in_time(lambda: batcher._submit_nowait(2))
    assert 2 == first.result(PATIENCE)


def test_a_worker_that_waits_loses_no_action_of_a_finalizer(interrupt):
    """An action runs before the worker waits for the end of a window."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    interrupt(PlainQueue, "take", batcher.flush)
    assert 2 == batcher._submit_nowait(1).result(PATIENCE)


def test_a_worker_that_takes_a_batch_loses_no_action_of_a_finalizer(interrupt):
    """An action runs before the batch function, and not after it."""
    gate = Gate(doubled)
    gate.shut()
    batcher = SyncMicrobatcher(gate, batch_wait_timeout_s=HOUR, concurrency=2)
    futures = [batcher._submit_nowait(item) for item in (1, 2, 3)]
    workers = batcher._engine.workers
    # All workers wait for the window.
    wait_until(lambda: len(workers.idle) == len(workers.all))
    interrupt(Line, "take", batcher.flush)
    batcher._change({"max_size": 2})
    gate.await_batch()
    gate.await_batch()
    assert [[1, 2], [3]] == sorted(gate.batches)
    gate.open()
    assert [2, 4, 6] == [future.result(PATIENCE) for future in futures]


def test_a_worker_that_ends_a_batch_loses_no_action_of_a_finalizer(interrupt):
    """An action runs after the batch that the finalizer interrupted."""
    gate = Gate(doubled)
    gate.shut()
    batcher = SyncMicrobatcher(gate, 1, HOUR)
    first = batcher._submit_nowait(1)
    gate.await_batch()
    batcher._change({"max_size": 8})
    second = batcher._submit_nowait(2)
    interrupt(Slots, "finish", batcher.flush)
    gate.open()
    assert (2, 4) == (first.result(PATIENCE), second.result(PATIENCE))


def test_an_inline_call_loses_no_action_of_an_interrupt(interrupt):
    """An action runs before a call that runs its own batch returns."""
    with inline():
        batcher = SyncMicrobatcher(doubled)
        interrupt(Slots, "finish", batcher.close)
        assert 2 == batcher.submit(1)
        assert not batcher.is_running


def test_the_deadline_worker_loses_no_action_of_a_finalizer(interrupt):
    """An action runs before the worker waits for the next deadline."""
    double = microbatch(doubled, timeout=HOUR)
    interrupt(GroupedQueue, "expire", double.flush)
    assert 2 == double.options(deadline=HOUR).submit(1).result(PATIENCE)


def test_a_blocked_caller_loses_no_action_of_an_interrupt(interrupt):
    """An action runs once the caller has told the engine about its arrival."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    batcher.start()
    interrupt(PlainQueue, "plan", batcher.flush)
    assert 2 == in_time(lambda: batcher.submit(1))


def test_another_thread_may_run_a_deferred_action():
    """A thread continues if another thread has just run the last action."""
    ran = []

    def is_owned():
        if len(ran) == 1:
            deferred.pop()()
        return False

    deferred = DeferredActions(RLock(), is_owned, pytest.fail)
    with deferred:
        deferred += [lambda: ran.append("first"), lambda: ran.append("last")]
    assert ["first", "last"] == ran


@pytest.mark.parametrize("call", ["_submit_nowait", "submit"])
def test_an_interrupt_cannot_call_the_function(call, interrupt):
    """A call from an interrupt is refused, because it would wait for the interrupted call or overtake it."""
    batcher = SyncMicrobatcher(doubled, batch_wait_timeout_s=HOUR)
    errors = []

    def refused():
        with pytest.raises(ReentrantCallError) as caught:
            getattr(batcher, call)(3)
        errors.append(str(caught.value))

    interrupt(Line, "add", refused)
    future = in_time(lambda: batcher._submit_nowait(1))
    batcher.close()
    assert 2 == future.result(PATIENCE)
    expected = (
        "doubled() was called by a finalizer or signal handler in the middle of another call in this thread; "
        "make the call in another thread"
    )
    assert [expected] == errors


def test_an_interrupt_cannot_make_the_first_call_with_a_priority(interrupt):
    """Such a call is refused and changes nothing. The next call with a priority is accepted."""
    fn = microbatch(doubled)
    assert 2 == fn(1)
    (batcher,) = fn._self_scope.batchers()
    urgent = fn.options(priority=1)

    def call():
        with pytest.raises(ReentrantCallError, match="in the middle of another call in this thread"):
            urgent.submit(2)
        assert not batcher._takes_requests

    interrupt(PlainQueue, "take", call)
    assert 6 == in_time(lambda: fn.submit(3).result(PATIENCE))
    assert 8 == in_time(lambda: urgent(4))


def test_a_finalizer_never_waits_for_another_thread():
    """A thread that holds the lock runs the action of a finalizer that found it taken, once the lock is free."""
    lock, ran = RLock(), []
    deferred = DeferredActions(lock, lock._is_owned, pytest.fail)
    held, free = Event(), Event()

    def hold():
        with deferred, lock:
            held.set()
            free.wait(PATIENCE)

    holder = Thread(target=hold)
    holder.start()
    held.wait(PATIENCE)
    deferred.request(lambda: ran.append("deferred"))
    assert [] == ran
    free.set()
    holder.join(PATIENCE)
    deferred.request(lambda: ran.append("at once"))
    assert ["deferred", "at once"] == ran
