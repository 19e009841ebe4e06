"""``isolate_errors``: only the bad items of a failing batch fail, through both engines and the bridge."""

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
from batchify._core.reruns import Reruns
from batchify.testing import VirtualLoop, record, run
from tests.kit.engines import PATIENCE, doubled


def refusing(*bad):
    """Return a batch function that fails if one of ``bad`` is among its items."""

    def answer(items):
        for item in items:
            if item in bad:
                raise ValueError(item)
        return doubled(items)

    return answer


def together(kit, answer, items, **options):
    """Return the callers of ``items``, which share a batch, the gate, and the function."""
    fn, gate = kit.decorate(answer, timeout=3600, max_size=len(items), isolate_errors=True, **options)
    return kit.call_waiting(fn, *items), gate, fn


def test_only_bad_items_fail(kit):
    """The halves of a failing batch run again until the bad items are alone, and all others are answered."""
    callers, gate, fn = together(kit, refusing(2, 5), range(8))
    errors = kit.errors(callers)
    assert [2, 5] == [item for item, error in enumerate(errors) if error is not None]
    assert [((2,), ValueError), ((5,), ValueError)] == [(e.args, type(e)) for e in errors if e is not None]
    assert [0, 2, 6, 8, 12, 14] == kit.results([c for c, error in zip(callers, errors, strict=True) if error is None])
    assert [*range(8)] == gate.batches[0]
    assert [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]] == gate.batches[1:]
    assert 10 == fn.batch_stats.isolation_runs


def test_a_batch_that_succeeds_is_run_once(kit):
    """Without an error, nothing runs again."""
    callers, gate, fn = together(kit, doubled, [1, 2, 3])
    assert [2, 4, 6] == kit.results(callers)
    assert [[1, 2, 3]] == gate.batches
    assert 0 == fn.batch_stats.isolation_runs


def test_a_single_item_that_fails_is_not_run_again(kit):
    """A batch of one item has nothing to isolate."""
    callers, gate, fn = together(kit, refusing(1), [1])
    assert [ValueError] == list(map(type, kit.errors(callers)))
    assert ([[1]], 0) == (gate.batches, fn.batch_stats.isolation_runs)


def test_every_call_is_counted_once(kit):
    """The calls of all parts add up to the calls of the batch."""
    callers, _, fn = together(kit, refusing(3), range(4))
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
    """A part with a wrong number of results runs again in halves, too."""
    callers, _, _ = together(kit, lambda items: [item * 2 for item in items if item != 2], range(4))
    assert [None, None, BatchResultError, None] == [e and type(e) for e in kit.errors(callers)]


def test_the_batch_function_may_change_its_list(kit):
    """A change of its list affects no answer, even if the function then fails."""

    def consume(items):
        answers = []
        while items:
            answers.append(2 * items.pop(0))
            if answers[-1] == 2:
                raise KeyError
        return answers

    callers, _, _ = together(kit, consume, range(4))
    assert [None, KeyError, None, None] == [e and type(e) for e in kit.errors(callers)]
    assert [0, 4, 6] == kit.results([callers[0], *callers[2:]])


def test_good_items_do_not_wait_for_bad_ones(kit):
    """A part that succeeds is answered and counted while the rest of its batch still runs."""
    answered = threading.Event()

    def answer(items):
        if items == [2, 3]:
            assert answered.wait(PATIENCE), "no caller was answered"
        return refusing(3)(items)

    callers, _, fn = together(kit, answer, range(4))
    assert [0, 2] == kit.results(callers[:2])
    assert (2, 2) == (fn.batch_stats.answered_items, fn.batch_stats.running)
    answered.set()
    assert [None, ValueError] == [error and type(error) for error in kit.errors(callers[2:])]


def test_duplicates_share_their_outcome(kit):
    """Equal items are one item in the parts, too, and each of their callers gets its own exception."""
    callers, _, fn = together(kit, refusing(1), [1, 2, 1, 3, 4, 2], dedupe=True)
    # Four items do not fill a batch of six.
    fn.flush()
    errors = kit.errors(callers)
    assert [ValueError, None, ValueError, None, None, None] == [e and type(e) for e in errors]
    assert errors[0] is not errors[2]
    assert [4, 6, 8, 4] == kit.results([c for c, e in zip(callers, errors, strict=True) if e is None])


def test_a_part_is_the_current_batch(kit):
    """``current_batch()`` and a recorder have the part that runs, with the contexts of its items."""
    seen = []

    def answer(items):
        current = batchify.current_batch()
        seen.append((current.size, len(current.contexts)))
        return refusing(1)(items)

    with record() as recorder:
        callers, _, _ = together(kit, answer, range(2), capture_context=True, name="parted")
        kit.errors(callers)
    assert [(2, 2), (1, 1), (1, 1)] == seen
    assert [(0, 1), (0,), (1,)] == [batch.items for batch in recorder.batches if batch.name == "parted"]


def test_a_part_cannot_call_its_own_function(kit):
    """A call from inside a part would wait for its own batch, and is refused."""

    def answer(items):
        if len(items) > 1:
            raise KeyError
        return [kit.inside(fn, 0)] if items == [1] else doubled(items)

    fn, _ = kit.decorate(answer, timeout=3600, max_size=2, isolate_errors=True)
    callers = kit.call_waiting(fn, 1, 2)
    assert [batchify.ReentrantCallError, None] == [e and type(e) for e in kit.errors(callers)]


def test_reports_are_of_parts(kit):
    """``on_batch`` gets a report of each part that ends, with its error."""
    reports = []
    callers, _, fn = together(kit, refusing(1), range(3), on_batch=reports.append)
    kit.errors(callers)
    fn.close()
    assert [(1, None), (1, ValueError), (1, None)] == [(r.size, r.error and type(r.error)) for r in reports]


def test_an_error_that_is_no_exception_ends_all_parts():
    """A batch that is cancelled in one of its parts is aborted for all callers without an answer."""

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
    """In a worker thread, every caller without an answer gets the error, and the next batch runs."""

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
    """A batch is cancelled when all callers without an answer have left."""
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


def test_an_answered_caller_that_is_cancelled_has_not_left():
    """A caller that is cancelled after its answer does not count twice, and ends no batch."""
    tasks = []

    @microbatch(max_size=3, isolate_errors=True)
    async def double(items):
        if len(items) == 3:
            raise ValueError
        if 0 not in items:
            # The first caller has its answer, and has not resumed yet.
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
    """A batch without callers that is cancelled and raises another error does not run again."""
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


def test_a_hook_that_ends_the_program_ends_no_batch():
    """A hook that ends the loop after a part does not end the other parts."""
    reports = []

    def end(report):
        reports.append(report.size)
        if len(reports) == 1:
            raise SystemExit(3)

    @microbatch(max_size=4, isolate_errors=True, on_batch=end)
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
    """Parts run in the slot of their batch, and the next batch waits for the last of them."""
    callers, gate, fn = together(kit, refusing(0), range(4))
    gate.shut()
    later = kit.call_waiting(fn, 10, 11, 12, 13)
    gate.open()
    kit.errors(callers)
    assert [20, 22, 24, 26] == kit.results(later)
    assert [10, 11, 12, 13] == gate.batches[-1]


@settings(max_examples=300)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_the_promised_bound(drawn):
    """The search finds exactly the bad items, with no more additional runs than promised."""
    size, bad = drawn
    batch = Batch([*range(size)], [*range(size)], [0.0] * size, range(size), "full", size, 0.0)
    runs, ended, answered = 0, [], []
    parts = Reruns(batch, isolate=True)
    for part in parts:
        runs += 1
        parts.items.clear()
        if bad.isdisjoint(part.items):
            answered += part.waiters
        else:
            ended += [waiter for end in parts.ended(ValueError()) for waiter in end.waiters]
    assert (sorted(bad), sorted(set(range(size)) - bad)) == (ended, answered)
    assert runs - 1 <= min(2 * size - 2, 2 * len(bad) * ceil(log2(size)))
