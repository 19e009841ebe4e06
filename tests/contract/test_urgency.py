"""``fn.options(priority=, deadline=)`` on both engines: order of departure, and errors at deadlines."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import Future

import pytest

import batchify
from batchify import DeadlineError, QueueFullError, ReentrantCallError, SyncMicrobatcher, microbatch
from batchify._threads import workers
from batchify._threads.engine import ThreadEngine
from batchify.testing import inline, run
from tests.kit.engines import HOUR, PATIENCE, doubled, wait_until

# A deadline that passes in real time, in seconds.
SOON = 0.02


def call_waiting(kit, *calls):
    """Make ``calls``, pairs of a function and an item, and queue each before the next; return the callers."""
    return [caller for fn, item in calls for caller in kit.call_waiting(fn, item)]


def test_the_higher_priority_leaves_first(kit):
    """Calls with a higher priority leave before earlier calls."""
    double, gate = kit.held(max_size=1)
    high, low = double.options(priority=1000), double.options(priority=-1000)
    callers = call_waiting(kit, (low, 1), (double, 2), (high, 3), (high, 4), (double, 5))
    gate.open()
    assert [2, 4, 6, 8, 10] == kit.results(callers)
    assert [[0], [3], [4], [2], [5], [1]] == gate.batches


def test_calls_of_a_view_share_batches_with_other_calls(kit):
    """Calls of a view and of its function share batches."""
    double, gate = kit.held()
    callers = call_waiting(kit, (double, 1), (double.options(priority=1000), 2), (double.options(deadline=HOUR), 3))
    gate.open()
    assert [2, 4, 6] == kit.results(callers)
    assert [[0], [2, 1, 3]] == gate.batches


def test_items_queued_before_the_first_urgent_call_keep_their_place(kit):
    """Items queued before the first urgent call keep their order, can be cancelled, and are answered."""
    double, gate = kit.held(max_size=2)
    callers = kit.call_waiting(double, 1, 2)
    cancelled_before = kit.run(lambda: double.submit(8))
    callers += kit.call_waiting(double, 3, 4)
    cancelled_after = kit.run(lambda: double.submit(9))
    # The queue now has an empty place, where the cancelled item was.
    kit.run(cancelled_before.cancel)
    wait_until(lambda: double.batch_stats.cancelled_items == 1)
    callers += call_waiting(kit, (double.options(priority=1000), 5))
    kit.run(cancelled_after.cancel)
    gate.open()
    assert [2, 4, 6, 8, 10] == kit.results(callers)
    assert [[0], [5, 1], [2, 3], [4]] == gate.batches
    assert (6, 2, 0) == (
        double.batch_stats.answered_items,
        double.batch_stats.cancelled_items,
        double.batch_stats.pending,
    )


def test_contexts_are_kept_after_the_first_urgent_call(kit):
    """With ``capture_context``, calls before and after the first urgent call keep their contexts."""
    seen = []

    def record_contexts(items):
        seen.append((len(items), len(batchify.current_batch().contexts)))
        return doubled(items)

    double, gate = kit.decorate(record_contexts, capture_context=True)
    gate.shut()
    kit.call(double, 0)
    gate.await_batch()
    callers = call_waiting(kit, (double, 1), (double.options(priority=1), 2), (double, 3))
    gate.open()
    assert [2, 4, 6] == kit.results(callers)
    assert [(1, 1), (3, 3)] == seen


def test_a_deadline_passes_while_the_slot_is_busy(kit):
    """An item that is not started by its deadline is dropped, and its caller gets an error while the slot is busy."""
    double, gate = kit.held()
    late, other = call_waiting(kit, (double.options(deadline=SOON), 1), (double, 2))
    error = late.exception(PATIENCE)
    assert [[0]] == gate.batches
    assert DeadlineError is type(error)
    assert isinstance(error, TimeoutError)
    expected = "double() dropped an item that it could not start within its deadline of 0.02 s; "
    assert str(error) == expected + "allow the call more time, or give the batcher more capacity"
    gate.open()
    assert 4 == other.result(PATIENCE)
    assert [[0], [2]] == gate.batches
    wait_until(lambda: double.batch_stats.answered_items == 2)
    stats = double.batch_stats
    assert (1, 0, 0, 0) == (stats.expired_items, stats.cancelled_items, stats.pending, stats.running)


def test_deadlines_may_pass_in_any_order(kit):
    """Each call fails at its own deadline, whatever the order of the calls."""
    double, gate = kit.held()
    patient = double.options(deadline=2 * SOON)
    hasty = double.options(deadline=SOON)
    callers = call_waiting(kit, (patient, 1), (hasty, 2), (double.options(deadline=HOUR), 3), (patient, 4))
    assert [DeadlineError] * 3 == list(map(type, kit.errors([callers[0], callers[1], callers[3]])))
    gate.open()
    assert 6 == callers[2].result(PATIENCE)


def test_a_started_item_has_met_its_deadline(kit):
    """An item that is running at its deadline is answered."""
    double, gate = kit.decorate()
    gate.shut()
    seconds, callers = SOON, []
    while not gate.batches:
        # A busy machine may start the item too late.
        seconds *= 2
        callers.append(kit.call(double.options(deadline=seconds), 1))
        wait_until(lambda: gate.batches or callers[-1].done())
    late = kit.call(double.options(deadline=seconds), 2)
    assert DeadlineError is type(late.exception(PATIENCE))
    assert not callers[-1].done()
    gate.open()
    assert 2 == callers[-1].result(PATIENCE)


def test_a_batch_leaves_in_time_for_its_deadlines(kit):
    """With a free slot, a batch leaves before its window ends if a deadline in it requires that."""
    double, gate = kit.decorate(timeout=HOUR)
    callers = call_waiting(kit, (double, 1), (double.options(deadline=1), 2))
    assert [2, 4] == kit.results(callers)
    assert [[1, 2]] == gate.batches
    assert 1 == double.batch_stats.reasons["deadline"]


def test_submit_has_priorities_and_deadlines(kit):
    """``submit()`` of a view has the priority and deadline of the view."""
    double, gate = kit.held(max_size=1)
    futures = kit.run(lambda: [double.submit(1), double.options(priority=1000).submit(2)])
    late = kit.run(lambda: double.options(deadline=SOON).submit(3))
    kit.await_done([late])
    assert DeadlineError is type(late.exception())
    gate.open()
    kit.await_done(futures)
    assert [[0], [2], [1]] == gate.batches


def test_map_raises_a_deadline_error():
    """``map`` of a view raises ``DeadlineError`` if an item misses its deadline."""
    gate = threading.Event()

    @microbatch(max_size=1)
    def double(items):
        assert gate.wait(PATIENCE)
        return doubled(items)

    running = double.submit(0)
    wait_until(lambda: double.batch_stats.running)
    with pytest.raises(DeadlineError):
        double.options(deadline=SOON).map([1, 2])
    gate.set()
    assert 0 == running.result(PATIENCE)
    assert 0 == double.batch_stats.pending


def test_a_caller_cancelled_before_its_deadline_does_not_expire(kit):
    """A caller that is cancelled before its deadline counts as cancelled, and not as expired."""
    double, gate = kit.held()
    cancelled = kit.run(lambda: double.options(deadline=2 * SOON).submit(1))
    kit.run(cancelled.cancel)
    late = kit.call(double.options(deadline=3 * SOON), 2)
    assert DeadlineError is type(late.exception(PATIENCE))
    gate.open()
    double.flush()
    wait_until(lambda: not double.batch_stats.running)
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.expired_items)


def test_a_deadline_ends_a_wait_for_room(kit):
    """A call that waits for room fails at its deadline, and other calls are answered."""
    double, gate = kit.held(max_pending=1, on_full="wait")
    waiting = kit.call_waiting(double, 1)
    late = kit.call(double.options(deadline=SOON), 2)
    assert DeadlineError is type(late.exception(PATIENCE))
    gate.open()
    assert 2 == waiting[0].result(PATIENCE)
    assert [[0], [1]] == gate.batches


def test_submit_without_room_returns_at_its_deadline():
    """``submit()`` that waits for room in a thread returns a failed future at its deadline."""
    gate = threading.Event()

    @microbatch(max_pending=1, max_size=1)
    def double(items):
        assert gate.wait(PATIENCE)
        return doubled(items)

    futures = [double.submit(0)]
    wait_until(lambda: double.batch_stats.running)
    futures.append(double.submit(1))
    late = double.options(deadline=SOON).submit(2)
    assert DeadlineError is type(late.exception(0))
    gate.set()
    assert [0, 2] == [future.result(PATIENCE) for future in futures]


def test_a_full_queue_refuses_urgent_calls(kit):
    """``on_full="raise"`` refuses an urgent call like any other."""
    double, gate = kit.held(max_pending=1, on_full="raise")
    kit.call_waiting(double, 1)
    assert QueueFullError is type(kit.call(double.options(priority=9), 2).exception(PATIENCE))


def test_callers_of_a_shared_item_have_separate_deadlines(kit):
    """With ``dedupe``, one caller of a shared item misses its deadline and the other gets the result."""
    double, gate = kit.held(dedupe=True)
    late, other = call_waiting(kit, (double.options(deadline=SOON), 1), (double, 1))
    assert DeadlineError is type(late.exception(PATIENCE))
    gate.open()
    assert 2 == other.result(PATIENCE)


def test_close_does_not_wait_for_a_deadline(kit):
    """``close()`` runs waiting items at once, however long their deadlines are."""
    double, _ = kit.decorate(timeout=HOUR)
    callers = call_waiting(kit, (double.options(deadline=HOUR), 1))
    double.options(priority=1).close()
    assert [2] == kit.results(callers)
    assert batchify.BatcherClosedError is type(kit.call(double, 1).exception(PATIENCE))


def test_close_returns_after_the_last_item_has_expired():
    """If all waiting items are dropped at their deadlines, ``close()`` returns."""
    gate = threading.Event()
    order = []

    @microbatch(max_size=1)
    def double(items):
        assert gate.wait(PATIENCE)
        return doubled(items)

    running = double.submit(0)
    wait_until(lambda: double.batch_stats.running)
    late = double.options(deadline=SOON).submit(1)
    late.add_done_callback(lambda _: (order.append("late"), gate.set()))
    double.close()
    order.append("closed")
    assert 0 == running.result(PATIENCE)
    assert ["late", "closed"] == order


@pytest.mark.parametrize("action", ["close", "call"])
def test_a_callback_of_an_expired_future_does_not_block(action):
    """A callback of an expired future closes the function at once; a call from it is refused."""
    gate = threading.Event()
    outcome = Future()

    @microbatch(max_size=1)
    def double(items):
        assert gate.wait(PATIENCE)
        return doubled(items)

    def called_back(_):
        try:
            outcome.set_result(double.close() if action == "close" else double(2))
        except ReentrantCallError as error:
            outcome.set_exception(error)

    running = double.submit(0)
    wait_until(lambda: double.batch_stats.running)
    late = double.options(deadline=SOON).submit(1)
    late.add_done_callback(called_back)
    assert (type(None) if action == "close" else ReentrantCallError) is type(outcome.exception(PATIENCE))
    gate.set()
    assert 0 == running.result(PATIENCE)


class Scorer:
    """A class with methods of each kind."""

    def __init__(self, factor):
        self.factor = factor

    @microbatch(max_size=4)
    def times(self, numbers, weights, *, plus=0):
        return [self.factor * number * weight + plus for number, weight in zip(numbers, weights, strict=True)]

    @microbatch(max_size=4)
    async def atimes(self, numbers):
        return [self.factor * number for number in numbers]

    @microbatch
    @classmethod
    def named(cls, numbers):
        return [cls.__name__] * len(numbers)


@microbatch
def tripled(items):
    return [3 * item for item in items]


def test_methods_have_views():
    """Views work for methods, class methods and functions with several columns and options."""
    scorer, other = Scorer(10), Scorer(100)
    view = scorer.times.options(priority=1, deadline=HOUR)
    assert 62 == view(2, 3, plus=2)
    assert [60, 200] == view.map([(2, 3), (4, 5)])
    assert 6 == microbatch(tripled.__wrapped__).options(priority=1).submit(2).result(PATIENCE)
    assert "Scorer" == Scorer.named.options(deadline=1)(1)
    assert 600 == other.times(2, 3)
    assert 20 == run(wait_for(scorer.atimes.options(deadline=HOUR)))
    assert (3, 1) == (view.batch_stats.total_items, other.times.batch_stats.total_items)


async def wait_for(fn):
    return await fn(2)


def test_a_view_keeps_its_instance_alive():
    """A call through a view of a temporary object's method is answered."""
    assert 20 == run(Scorer(10).atimes.options(priority=1)(2))


def test_a_view_acts_on_its_function():
    """Statistics, configuration and closing of a view are those of its function; a view can be pickled."""
    double = microbatch(doubled, name="double")
    view = double.options(priority=2, deadline=0.5)
    assert "<microbatch double, priority 2, deadline 0.5 s>" == repr(view)
    assert "<microbatch double, priority 0>" == repr(view.options())
    assert 2 == view(1)
    assert double.batch_stats == view.batch_stats
    view.configure(max_size=1)
    view.flush()
    assert view is copy.copy(view)
    view.reset_stats()
    assert 0 == double.batch_stats.total_items
    unpickled = pickle.loads(pickle.dumps(tripled.options(priority=2, deadline=0.5)))  # noqa: S301  # our own bytes
    assert (repr(tripled.options(priority=2, deadline=0.5)), tripled) == (repr(unpickled), unpickled._self_base)
    scorer = Scorer(10)
    copied = copy.deepcopy(scorer.times.options(priority=1))
    scorer.factor = 0
    assert 60 == copied(2, 3)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"priority": True}, TypeError, "priority must be a number, got True of type bool"),
        ({"priority": "1"}, TypeError, "priority must be a number, got '1' of type str"),
        ({"priority": float("nan")}, ValueError, "priority must be a finite number, got nan"),
        ({"priority": float("inf")}, ValueError, "priority must be a finite number, got inf"),
        ({"deadline": 0}, ValueError, "deadline must be a finite number above 0, got 0"),
        ({"deadline": "1"}, TypeError, "deadline must be a number, or None, got '1' of type str"),
        ({"deadline": float("inf")}, ValueError, "deadline must be a finite number above 0, got inf"),
    ],
)
def test_invalid_priorities_and_deadlines_are_refused(options, kind, message):
    """A priority is a finite number, and a deadline is a finite number above 0."""
    with pytest.raises(kind) as raised:
        tripled.options(**options)
    assert message == str(raised.value)


def test_a_view_is_in_no_reference_cycle():
    """A view is freed with its last reference, without the garbage collector."""
    gc.disable()
    try:
        view = weakref.ref(tripled.options(priority=1))
        assert None is view()
    finally:
        gc.enable()


def test_inline_has_no_deadlines(kit):
    """With ``inline()``, a caller runs its urgent call itself, and no deadline thread starts."""
    double, _ = kit.decorate()
    with inline():
        assert 2 == kit.call(double.options(deadline=SOON, priority=1), 1).result(PATIENCE)
        assert 2 == kit.call(double, 1).result(PATIENCE)
    assert not any("deadlines" in thread.name for thread in threading.enumerate())
    assert 2 == kit.call(double.options(deadline=HOUR), 1).result(PATIENCE)


# Event loops, in virtual time.


async def test_a_loop_raises_a_deadline_error_exactly_on_time(moment):
    """On a loop, a call fails exactly at its deadline."""

    @microbatch(max_size=1)
    async def slow(items):
        await asyncio.sleep(10)
        return items

    first = slow.submit(1)
    await asyncio.sleep(0)
    with pytest.raises(DeadlineError):
        await slow.options(deadline=2.5)(2)
    assert 2.5 == moment()
    assert 1 == await first
    assert 10 == moment()


async def test_a_free_slot_starts_an_item_before_its_deadline(moment):
    """With a free slot, a waiting item leaves after nine tenths of the time to its deadline."""

    @microbatch(timeout=HOUR)
    async def double(items):
        return doubled(items)

    assert 2 == await double.options(deadline=2.5)(1)
    assert 2.25 == pytest.approx(moment())


async def test_a_blocked_loop_drops_expired_items():
    """If a loop was blocked beyond the deadline of an item, the item is dropped and not started late."""
    ran = []

    @microbatch(timeout=HOUR)
    async def record(items):
        ran.append(items)
        return items

    call = record.options(deadline=1).submit(1)
    loop = asyncio.get_running_loop()
    loop.call_at(0.8, setattr, loop._clock, "now", 5.0)
    with pytest.raises(DeadlineError):
        await call
    assert [] == ran


async def test_a_caller_cancelled_at_its_deadline_does_not_expire():
    """A caller that is cancelled exactly at its deadline counts once, as cancelled."""

    @microbatch(max_size=1)
    async def slow(items):
        await asyncio.sleep(10)
        return items

    first = slow.submit(1)
    await asyncio.sleep(0)
    late = slow.options(deadline=1).submit(2)
    asyncio.get_running_loop()._clock.now = 1.5
    late.cancel()
    slow.flush()
    assert (1, 0) == (slow.batch_stats.cancelled_items, slow.batch_stats.expired_items)
    assert 1 == await first
    assert (1, 0) == (slow.batch_stats.cancelled_items, slow.batch_stats.expired_items)


async def test_a_view_from_another_thread_changes_the_order_at_once():
    """The first urgent call reorders the queue of its loop at once, whichever thread made the view."""

    @microbatch(max_size=1)
    async def double(items):
        await asyncio.sleep(1)
        return doubled(items)

    first, second = double.submit(1), double.submit(2)
    await asyncio.sleep(0)
    views = []
    maker = threading.Thread(target=lambda: views.append(double.options(priority=1000)))
    maker.start()
    maker.join()
    third = views[0].submit(3)
    await asyncio.wait([first, second, third], return_when=asyncio.FIRST_COMPLETED)
    assert not second.done()
    assert 6 == await third
    assert 4 == await second


# Threads.


def test_an_expired_item_frees_the_batch_behind_it(monkeypatch):
    """After an item is dropped at its deadline, a worker starts the items that may leave now."""
    double = microbatch(doubled, timeout=HOUR)
    view = double.options(deadline=HOUR)
    late, other = view.submit(1), double.submit(2)
    engine = double._self_route.find()._engine
    queue, now = engine.line.queue, engine.line.queue.entries[0].deadline
    wait_until(lambda: engine.workers.idle)
    # This is the state if the worker of the window wakes after the deadline, and the window has ended.
    queue.flush("flush")
    monkeypatch.setattr("batchify._threads.engine.monotonic", lambda: now)
    engine._expire()
    monkeypatch.undo()
    assert DeadlineError is type(late.exception(PATIENCE))
    assert 4 == other.result(PATIENCE)


def test_the_deadline_thread_ends_with_its_engine():
    """The deadline thread ends when its function is closed or collected."""

    def watching():
        return [
            thread.name
            for thread in threading.enumerate()
            if thread.name in ("watched-deadlines-0", "dropped-deadlines-0")
        ]

    double = microbatch(doubled, name="watched")
    assert 2 == double.options(deadline=HOUR)(1)
    assert ["watched-deadlines-0"] == watching()
    double.close()
    wait_until(lambda: not watching())
    other = microbatch(doubled, name="dropped")
    assert 2 == other.options(deadline=HOUR)(1)
    assert ["dropped-deadlines-0"] == watching()
    del other
    wait_until(lambda: not watching())


def test_a_restarted_engine_applies_deadlines():
    """After ``stop()`` and ``start()``, deadlines apply as before."""
    gate = threading.Event()

    @microbatch(max_size=1)
    def double(items):
        assert gate.wait(PATIENCE)
        return doubled(items)

    view = double.options(deadline=SOON)
    [batcher] = [b for b in [double._self_route.find()] if isinstance(b, SyncMicrobatcher)]
    for _ in range(2):
        batcher.start()
        gate.clear()
        running = double.submit(0)
        wait_until(lambda: double.batch_stats.running)
        assert DeadlineError is type(view.submit(1).exception(PATIENCE))
        gate.set()
        assert 0 == running.result(PATIENCE)
        batcher.stop()


def test_a_deadline_thread_that_cannot_start_fails_one_call(monkeypatch):
    """If the deadline thread cannot start, the call fails, and the next call tries again."""
    double = microbatch(doubled)

    def fail(self):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(workers.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            double.options(deadline=HOUR)(1)
    assert 2 == double.options(deadline=HOUR)(1)
    assert (1, 0) == (double.batch_stats.answered_items, double.batch_stats.pending)


def in_another_thread(action):
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_an_urgent_call_waits_while_the_engine_is_made():
    """A first call with a priority waits while another thread makes the engine with the old options."""
    double = microbatch(doubled)
    batcher, answers, callers = double._self_route.find(), [], []

    def make_engine(*args):
        callers.append(in_another_thread(lambda: answers.append(double.options(priority=1)(1))))
        # Long enough for the call to be queued, unless a lock blocks it.
        callers[0].join(SOON)
        return ThreadEngine(*args)

    batcher._engine_kind = make_engine
    assert 0 == double(0)
    callers[0].join(PATIENCE)
    assert ([2], 1) == (answers, len(callers))


def test_the_second_urgent_call_waits_for_the_change_of_the_first(monkeypatch):
    """An urgent call waits while another thread changes the queue of the engine, and is answered."""
    double = microbatch(doubled)
    assert 0 == double(0)
    engine, answers = double._self_route.find()._engine, []
    change = engine.configure

    def call_and_change(config):
        second = in_another_thread(lambda: answers.append(double.options(priority=1)(1)))
        # Long enough for the call to be queued, unless a lock blocks it.
        second.join(SOON)
        change(config)
        answers.append(second)

    monkeypatch.setattr(engine, "configure", call_and_change)
    assert 4 == double.options(priority=1)(2)
    answers.pop(0).join(PATIENCE)
    assert [2] == answers
