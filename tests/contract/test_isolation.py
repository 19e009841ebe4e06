"""``isolate_errors``: only the bad items of a failed batch fail, on both engines and across the bridge."""

from __future__ import annotations

import asyncio
import threading
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchify
from batchify import BatchAbortedError, BatchResultError, microbatch
from batchify._core.batch import Batch
from batchify._core.limits import Limits
from batchify._core.reruns import Reruns
from batchify.testing import VirtualLoop, record, run
from tests.kit.engines import PATIENCE, doubled


def failing_on(*bad):
    """Return an ``answer`` function that raises if one of its items is in ``bad``."""

    def answer(items):
        for item in items:
            if item in bad:
                raise ValueError(item)
        return doubled(items)

    return answer


def call_as_batch(kit, answer, items, **options):
    """Call with ``items``, which share a batch; return the callers, the gate, and the function."""
    fn, gate = kit.decorate(answer, timeout=3600, max_size=len(items), isolate_errors=True, **options)
    return kit.call_waiting(fn, *items), gate, fn


def test_only_bad_items_fail(kit):
    """A failed batch runs again in halves until only the bad items fail; all other callers get their results."""
    callers, gate, fn = call_as_batch(kit, failing_on(2, 5), range(8))
    errors = kit.errors(callers)
    assert [2, 5] == [item for item, error in enumerate(errors) if error is not None]
    assert [((2,), ValueError), ((5,), ValueError)] == [(e.args, type(e)) for e in errors if e is not None]
    assert [0, 2, 6, 8, 12, 14] == kit.results([c for c, error in zip(callers, errors, strict=True) if error is None])
    assert [*range(8)] == gate.batches[0]
    assert [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]] == gate.batches[1:]
    assert 10 == fn.batch_stats.isolation_runs


def test_a_batch_that_succeeds_runs_once(kit):
    """A batch that succeeds does not run again."""
    callers, gate, fn = call_as_batch(kit, doubled, [1, 2, 3])
    assert [2, 4, 6] == kit.results(callers)
    assert [[1, 2, 3]] == gate.batches
    assert 0 == fn.batch_stats.isolation_runs


def test_a_batch_of_one_item_does_not_run_again(kit):
    """A batch of one item that fails does not run again."""
    callers, gate, fn = call_as_batch(kit, failing_on(1), [1])
    assert [ValueError] == list(map(type, kit.errors(callers)))
    assert ([[1]], 0) == (gate.batches, fn.batch_stats.isolation_runs)


def test_every_call_is_counted_once(kit):
    """The statistics count each call once, although its item runs several times."""
    callers, _, fn = call_as_batch(kit, failing_on(3), range(4))
    kit.errors(callers)
    fn.close()
    stats = fn.batch_stats
    assert (3, 1, 0, 0, 0) == (
        stats.answered_items,
        stats.failed_items,
        stats.cancelled_items,
        stats.pending,
        stats.running,
    )
    assert {1: 2, 2: 1} == stats.size_histogram


def test_wrong_results_are_isolated(kit):
    """A part that returns the wrong number of results also runs again in halves."""
    callers, _, _ = call_as_batch(kit, lambda items: [item * 2 for item in items if item != 2], range(4))
    assert [None, None, BatchResultError, None] == [e and type(e) for e in kit.errors(callers)]


def test_the_batch_function_may_change_its_list(kit):
    """The batch function may change its list of items without an effect on the results, even if it then fails."""

    def consume(items):
        answers = []
        while items:
            answers.append(2 * items.pop(0))
            if answers[-1] == 2:
                raise KeyError
        return answers

    callers, _, _ = call_as_batch(kit, consume, range(4))
    assert [None, KeyError, None, None] == [e and type(e) for e in kit.errors(callers)]
    assert [0, 4, 6] == kit.results([callers[0], *callers[2:]])


def test_good_items_do_not_wait_for_bad_ones(kit):
    """The callers of a part that succeeds get their results while the rest of the batch still runs."""
    answered = threading.Event()

    def answer(items):
        if items == [2, 3]:
            assert answered.wait(PATIENCE), "no caller got its result in time"
        return failing_on(3)(items)

    callers, _, fn = call_as_batch(kit, answer, range(4))
    assert [0, 2] == kit.results(callers[:2])
    assert (2, 2) == (fn.batch_stats.answered_items, fn.batch_stats.running)
    answered.set()
    assert [None, ValueError] == [error and type(error) for error in kit.errors(callers[2:])]


def test_duplicates_share_their_outcome(kit):
    """Equal items stay one item in each part, and each of their callers gets its own exception."""
    callers, _, fn = call_as_batch(kit, failing_on(1), [1, 2, 1, 3, 4, 2], dedupe=True)
    # The four distinct items do not fill a batch of six.
    fn.flush()
    errors = kit.errors(callers)
    assert [ValueError, None, ValueError, None, None, None] == [e and type(e) for e in errors]
    assert errors[0] is not errors[2]
    assert [4, 6, 8, 4] == kit.results([c for c, e in zip(callers, errors, strict=True) if e is None])


def test_a_part_is_the_current_batch(kit):
    """``current_batch()`` and a recorder describe the part that runs, with the contexts of its items."""
    seen = []

    def answer(items):
        current = batchify.current_batch()
        seen.append((current.size, len(current.contexts)))
        return failing_on(1)(items)

    with record() as recorder:
        callers, _, _ = call_as_batch(kit, answer, range(2), capture_context=True, name="parted")
        kit.errors(callers)
    assert [(2, 2), (1, 1), (1, 1)] == seen
    assert [(0, 1), (0,), (1,)] == [batch.items for batch in recorder.batches if batch.name == "parted"]


def test_a_part_cannot_call_its_own_function(kit):
    """A call from inside a part to its own function is refused, because it would wait for its own batch."""

    def answer(items):
        if len(items) > 1:
            raise KeyError
        return [kit.inside(fn, 0)] if items == [1] else doubled(items)

    fn, _ = kit.decorate(answer, timeout=3600, max_size=2, isolate_errors=True)
    callers = kit.call_waiting(fn, 1, 2)
    assert [batchify.ReentrantCallError, None] == [e and type(e) for e in kit.errors(callers)]


def test_each_part_is_reported(kit):
    """``on_batch`` gets a report of each part that completes, with its error."""
    reports = []
    callers, _, fn = call_as_batch(kit, failing_on(1), range(3), on_batch=reports.append)
    kit.errors(callers)
    fn.close()
    assert [(1, None), (1, ValueError), (1, None)] == [(r.size, r.error and type(r.error)) for r in reports]


def test_a_cancelled_part_aborts_the_batch():
    """If a part is cancelled, all callers without an answer get a ``BatchAbortedError``."""

    @microbatch(max_size=4, isolate_errors=True)
    async def double(items):
        if len(items) == 4:
            raise ValueError
        if items == [2, 3]:
            raise asyncio.CancelledError
        return doubled(items)

    async def main():
        return await asyncio.gather(*map(double, range(4)), return_exceptions=True)

    zero, two, *aborted = run(main())
    assert (0, 2) == (zero, two)
    assert [BatchAbortedError] * 2 == list(map(type, aborted))
    assert (2, 2, 0) == (
        double.batch_stats.answered_items,
        double.batch_stats.failed_items,
        double.batch_stats.running,
    )


def test_a_thread_survives_a_system_exit_in_a_part():
    """A worker thread survives a ``SystemExit`` in a part: its callers get the error, and the next batch runs."""

    @microbatch(max_size=4, timeout=3600, isolate_errors=True)
    def double(items):
        if len(items) == 4:
            raise ValueError
        if 0 in items:
            raise SystemExit(3)
        return doubled(items)

    futures = [double.submit(item) for item in range(4)]
    assert [SystemExit] * 4 == [type(future.exception(PATIENCE)) for future in futures]
    double.configure(timeout=None)
    assert 14 == double(7)


def test_an_abandoned_batch_is_cancelled():
    """A batch is cancelled when all callers without an answer have cancelled."""
    cancelled = []

    @microbatch(max_size=4, isolate_errors=True)
    async def double(items):
        if len(items) == 4:
            raise ValueError
        if 2 in items:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(items)
                raise
        return doubled(items)

    async def main():
        tasks = [asyncio.ensure_future(double(item)) for item in range(4)]
        assert [0, 2] == await asyncio.gather(*tasks[:2])
        for task in tasks[2:]:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert 1 > run(main())
    assert [[2, 3]] == cancelled
    assert (2, 2) == (double.batch_stats.answered_items, double.batch_stats.cancelled_items)


def test_a_cancellation_after_the_answer_is_not_counted():
    """A caller that is cancelled after its answer is not counted twice and does not cancel the batch."""
    tasks = []

    @microbatch(max_size=3, isolate_errors=True)
    async def double(items):
        if len(items) == 3:
            raise ValueError
        if 0 not in items:
            # The first caller has its answer, but has not resumed yet.
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.sleep(1)
        return doubled(items)

    async def main():
        tasks.extend(asyncio.ensure_future(double(item)) for item in range(3))
        await asyncio.wait(tasks)

    run(main())
    assert [True, True, False] == [task.cancelled() for task in tasks]
    assert 4 == tasks[2].result()
    assert (2, 1) == (double.batch_stats.answered_items, double.batch_stats.cancelled_items)


def test_an_abandoned_batch_does_not_run_again():
    """A batch that is cancelled for lack of callers does not run again, even if it raises another error."""
    runs = []

    @microbatch(max_size=4, isolate_errors=True)
    async def double(items):
        runs.append(items)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError from None

    async def main():
        tasks = [asyncio.ensure_future(double(item)) for item in range(4)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(1)

    run(main())
    assert [[0, 1, 2, 3]] == runs
    assert (4, 0, 0) == (
        double.batch_stats.cancelled_items,
        double.batch_stats.running,
        double.batch_stats.isolation_runs,
    )


def test_a_hook_that_stops_the_loop_does_not_end_the_batch():
    """A hook that stops the loop after a part does not end the other parts."""
    reports = []

    def exit_once(report):
        reports.append(report.size)
        if len(reports) == 1:
            raise SystemExit(3)

    @microbatch(max_size=4, isolate_errors=True, on_batch=exit_once)
    async def double(items):
        if len(items) == 4:
            raise ValueError
        return doubled(items)

    async def main():
        return await asyncio.gather(*map(double, range(4)))

    async def again():
        return await double(7)

    loop = VirtualLoop()
    try:
        task = loop.create_task(main())
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        assert [0, 2, 4, 6] == loop.run_until_complete(task)
        assert 14 == loop.run_until_complete(again())
    finally:
        loop.close()
    assert ([2, 2, 1], 0, 5) == (reports, double.batch_stats.running, double.batch_stats.answered_items)


def test_one_slot_runs_one_part_at_a_time(kit):
    """Parts run one at a time in the slot of their batch; the next batch waits for the last part."""
    callers, gate, fn = call_as_batch(kit, failing_on(0), range(4))
    gate.shut()
    later = kit.call_waiting(fn, 10, 11, 12, 13)
    gate.open()
    kit.errors(callers)
    assert [20, 22, 24, 26] == kit.results(later)
    assert [10, 11, 12, 13] == gate.batches[-1]


@settings(max_examples=300)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_isolation_stays_within_the_promised_number_of_runs(drawn):
    """Isolation finds exactly the bad items within the promised number of additional runs."""
    size, bad = drawn
    batch = Batch([*range(size)], [*range(size)], [0.0] * size, "full", size, 0.0)
    runs, failed, answered = 0, [], []
    parts = Reruns(batch, Limits().padding)
    for part in parts:
        runs += 1
        if bad.isdisjoint(part.items):
            answered += part.waiters
        else:
            failed += [waiter for end in parts.ended(ValueError(), is_abandoned=False) for waiter in end.waiters]
    assert (sorted(bad), sorted(set(range(size)) - bad)) == (failed, answered)
    assert runs - 1 <= min(2 * size - 2, 2 * len(bad) * ceil(log2(size)))
