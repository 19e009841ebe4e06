"""Batches that wait in a busy executor: until one starts, deadlines pass, and callers leave, as in the queue."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import Executor, Future

import pytest

from batchify import AsyncMicrobatcher, BatcherClosedError, DeadlineError, microbatch
from batchify._clock import monotonic
from tests.kit.columns import in_time
from tests.kit.engines import HOUR, PATIENCE, doubled, wait_until

# A deadline that passes in real time, in seconds.
SOON = 0.02


class Busy(Executor):
    """An executor that runs its calls in ``start()``, as a thread or another process does."""

    def __init__(self):
        self.calls = []

    def submit(self, fn, /):
        future = Future()
        self.calls.append((fn, future))
        return future

    def start(self, *, pickled=False):
        for fn, future in self.calls:
            if future.set_running_or_notify_cancel():
                future.set_result((pickle.loads(pickle.dumps(fn)) if pickled else fn)())  # noqa: S301  # our own bytes
        self.calls = []


class Refusing(Executor):
    """An executor that refuses its first call, and passes the others on."""

    def __init__(self, executor):
        self._executor = executor
        self._has_refused = False

    def submit(self, fn, /):
        if not self._has_refused:
            self._has_refused = True
            raise OSError
        return self._executor.submit(fn)


class Recorded:
    """A batch function that doubles its items, and records them."""

    def __init__(self):
        self.batches = []

    def __call__(self, items):
        self.batches.append(list(items))
        return doubled(items)


@pytest.fixture
def executor():
    return Busy()


@pytest.mark.parametrize("pickled", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"capture_context": True},
        {"dedupe": "running"},
        {"isolate_errors": True},
        {"length": abs},
        {"sizes": (1, 3)},
    ],
    ids=lambda options: "".join(options) or "plain",
)
def test_a_deadline_passes_before_the_batch_starts(executor, pickled, options):
    """An item is dropped at its deadline if its executor has not started the batch, and the other items run."""
    double = microbatch(doubled, executor=executor, max_size=3, timeout=HOUR, **options)
    first, late, last = double.submit(1), double.options(deadline=SOON).submit(2), double.submit(3)
    assert DeadlineError is type(late.exception(PATIENCE))
    stats = double.batch_stats
    assert (1, 0, 2) == (stats.expired_items, stats.pending, stats.running)
    executor.start(pickled=pickled)
    assert [2, 6] == [first.result(PATIENCE), last.result(PATIENCE)]
    double.drain(timeout=PATIENCE)
    stats = double.batch_stats
    assert (2, 2, 1, 0) == (stats.total_items, stats.answered_items, stats.expired_items, stats.cancelled_items)


def test_the_items_of_several_columns_expire_together(executor):
    """With several columns and an option, a dropped item is missing from each column."""
    seen = []

    @microbatch(executor=executor, max_size=2, timeout=HOUR)
    def add(left, right, *, scale=1):
        seen.append((list(left), list(right)))
        return [scale * (a + b) for a, b in zip(left, right, strict=True)]

    late, other = add.options(deadline=SOON).submit(1, 2, scale=2), add.submit(3, 4, scale=2)
    assert DeadlineError is type(late.exception(PATIENCE))
    executor.start()
    assert 14 == other.result(PATIENCE)
    assert [([3], [4])] == seen


@pytest.mark.parametrize("pickled", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize("options", [{}, {"sizes": (2,)}, {"keyed": True}], ids=["plain", "sizes", "keyed"])
def test_a_batch_whose_items_all_expired_does_not_run(executor, pickled, options):
    """A batch without callers runs no function, counts and reports nothing, and frees its slot."""
    fn, reports = Recorded(), []
    double = microbatch(fn, executor=executor, on_batch=reports.append, name="double", **options)
    late = [double.options(deadline=deadline).submit(1) for deadline in (SOON, 2 * SOON)]
    assert [DeadlineError] * 2 == [type(call.exception(PATIENCE)) for call in late]
    executor.start(pickled=pickled)
    double.drain(timeout=PATIENCE)
    stats = double.batch_stats
    assert ([], [], 0, 2) == (fn.batches, reports, stats.total_batches, stats.expired_items)
    double.configure(executor=None)


@pytest.mark.parametrize("end", ["close", "drain"])
def test_deadlines_pass_while_a_function_drains(executor, end):
    """A function that closes or drains waits until the deadlines of a batch in a busy executor have passed."""
    double = microbatch(doubled, executor=executor, max_size=2, timeout=HOUR)
    calls = [double.options(deadline=deadline).submit(1) for deadline in (SOON, 3 * SOON)]
    in_time(getattr(double, end))
    assert [DeadlineError] * 2 == [type(call.exception(0)) for call in calls]
    executor.start()


@pytest.mark.parametrize("pickled", [False, True], ids=["thread", "process"])
def test_a_close_that_times_out_drops_what_has_not_started(executor, pickled):
    """At the end of its timeout, ``close()`` also fails the items of a batch that waits in the executor."""
    double = microbatch(doubled, executor=executor, max_size=2, timeout=HOUR, concurrency=3)
    running, *waiting = [double.submit(item) for item in range(5)]
    wait_until(lambda: len(executor.calls) == 2)
    started = executor.calls.pop(0)
    answers = started[0]()
    in_time(lambda: double.close(timeout=0))
    assert [BatcherClosedError] * 3 == [type(call.exception(PATIENCE)) for call in waiting[1:]]
    started[1].set_result(answers)
    executor.start(pickled=pickled)
    assert (0, 2) == (running.result(PATIENCE), waiting[0].result(PATIENCE))
    wait_until(lambda: not double.batch_stats.running)
    stats = double.batch_stats
    assert (2, 3, 0, 1) == (stats.answered_items, stats.failed_items, stats.pending, stats.total_batches)


@pytest.mark.parametrize("options", [{}, {"dedupe": "running"}, {"isolate_errors": True}], ids=" ".join)
async def test_an_aclose_that_times_out_drops_what_has_not_started(executor, options):
    """On an event loop, it is the same, and the batch without callers ends at once."""
    batcher = AsyncMicrobatcher(doubled, 2, executor=executor, **options)
    calls = [asyncio.ensure_future(batcher.submit(item)) for item in range(3)]
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    await batcher.aclose(0)
    await asyncio.wait(calls, timeout=PATIENCE)
    assert [BatcherClosedError] * 3 == [type(call.exception()) for call in calls]
    await batcher.drain()
    [(_, future)] = executor.calls
    assert future.cancelled()
    stats = batcher.stats
    assert (3, 0, 0) == (stats.failed_items, stats.pending, stats.running)


async def test_a_caller_leaves_a_batch_whose_submit_failed(executor):
    """With ``isolate_errors``, the halves of a batch that the executor refused run with the callers that stay."""
    batcher = AsyncMicrobatcher(doubled, 4, HOUR, executor=Refusing(executor), isolate_errors=True)
    leaving, *staying = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3, 4)]
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    leaving.cancel()
    await asyncio.wait([leaving])
    executor.start()
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    executor.start()
    assert [4, 6, 8] == await asyncio.gather(*staying)
    stats = batcher.stats
    assert (1, 3, 0) == (stats.cancelled_items, stats.answered_items, stats.running)
    await batcher.stop()


def test_a_started_batch_has_met_its_deadlines(executor, monkeypatch):
    """A batch that its executor has started is answered, although its deadlines pass meanwhile."""
    double = microbatch(doubled, executor=executor, concurrency=2)
    late = double.options(deadline=HOUR).submit(1)
    wait_until(lambda: executor.calls)
    [(call, future)] = executor.calls
    executor.calls = []
    result = call()
    monkeypatch.setattr("batchify._threads.engine.monotonic", lambda: monotonic() + HOUR)
    # Before it takes this item, a worker drops what is overdue.
    other = double.submit(2)
    wait_until(lambda: executor.calls)
    assert not late.done()
    executor.start()
    future.set_result(result)
    assert (2, 4) == (late.result(PATIENCE), other.result(PATIENCE))


def test_an_executor_that_fails_answers_before_the_deadline(executor):
    """If the executor fails before it starts a batch, the error is the answer, and no deadline passes later."""
    double = microbatch(doubled, executor=executor)
    call = double.options(deadline=HOUR).submit(1)
    wait_until(lambda: executor.calls)
    executor.calls[0][1].set_exception(OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        call.result(PATIENCE)
    double.drain(timeout=PATIENCE)
    assert (1, 0) == (double.batch_stats.failed_items, double.batch_stats.expired_items)


async def test_tasks_that_leave_before_the_batch_starts_withdraw_their_items(executor):
    """On a loop, the items of cancelled tasks do not run if the executor has not started their batch."""
    fn = Recorded()
    batcher = AsyncMicrobatcher(fn, 3, HOUR, executor=executor)
    *leaving, staying = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3)]
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert (2, 1) == (batcher.stats.cancelled_items, batcher.stats.running)
    executor.start()
    assert 6 == await staying
    assert [[3]] == fn.batches
    await batcher.stop()


async def test_tasks_that_share_a_batch_in_a_thread_leave_before_it_starts(executor):
    """A cancelled ``acall()`` withdraws its item from a batch that its executor has not started."""
    fn = Recorded()
    double = microbatch(fn, executor=executor, max_size=2, timeout=HOUR, name="double")
    leaving, staying = asyncio.ensure_future(double.acall(1)), asyncio.ensure_future(double.acall(2))
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    leaving.cancel()
    await asyncio.wait([leaving])
    executor.start()
    assert 4 == await staying
    assert [[2]] == fn.batches
    await double.adrain()
    assert (1, 1) == (double.batch_stats.cancelled_items, double.batch_stats.answered_items)


async def test_all_tasks_of_a_batch_in_a_thread_leave_before_it_starts(executor):
    """A batch without callers frees its slot when the executor reaches it, and its function does not run."""
    fn = Recorded()
    double = microbatch(fn, executor=executor, name="double")
    call = asyncio.ensure_future(double.acall(1))
    await asyncio.to_thread(wait_until, lambda: executor.calls)
    call.cancel()
    await asyncio.wait([call])
    await double.adrain()
    executor.start()
    assert ([], 1, 0) == (fn.batches, double.batch_stats.cancelled_items, double.batch_stats.total_batches)
