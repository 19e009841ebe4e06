"""``dedupe="running"``: a call joins an equal item that is running, on both engines and across the bridge."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from batchify import QueueFullError, microbatch
from batchify.testing import inline, run
from tests.kit.engines import HOUR, PATIENCE, Tasks, Threads, counted_calls, doubled, wait_until


def held(kit, **options):
    """Start a batch of the item 0, which waits at the gate; return the function, the gate and the caller."""
    fn, gate = kit.decorate(**{"dedupe": "running", **options})
    gate.shut()
    [first] = kit.call_waiting(fn, 0)
    gate.await_batch()
    return fn, gate, first


def test_a_call_joins_an_equal_item_that_runs(kit):
    """A call joins an equal item that is running, and counts as running and as deduped."""
    fn, gate, first = held(kit)
    callers = [first, *kit.call_waiting(fn, 0, 0)]
    assert (0, 3) == (fn.batch_stats.pending, fn.batch_stats.running)
    gate.open()
    assert [0, 0, 0] == kit.results(callers)
    stats = fn.batch_stats
    assert (3, 1, 2, 0.0) == (stats.answered_items, stats.total_items, stats.deduped_items, stats.wait_ms.p50)
    assert [[0]] == gate.batches


def test_other_items_wait(kit):
    """An item that is not equal waits, and so does one that cannot be hashed."""
    fn, gate, first = held(kit)
    callers = [first, *kit.call_waiting(fn, 1, [0], [0])]
    assert 3 == fn.batch_stats.pending
    gate.open()
    assert [0, 2, [0, 0], [0, 0]] == kit.results(callers)
    assert [[0], [1, [0], [0]]] == gate.batches


def test_a_call_that_comes_later_waits_for_another_batch(kit):
    """A call that arrives after the answer does not join."""
    fn, gate = kit.decorate(dedupe="running")
    assert [0, 0] == [kit.call(fn, 0).result(PATIENCE), kit.call(fn, 0).result(PATIENCE)]
    assert [[0], [0]] == gate.batches


@pytest.mark.parametrize("dedupe", [True, "waiting"])
def test_a_call_does_not_join_otherwise(kit, dedupe):
    """With ``True`` or ``"waiting"``, calls only share items that wait."""
    fn, gate, first = held(kit, dedupe=dedupe)
    callers = [first, *kit.call_waiting(fn, 0, 0)]
    gate.open()
    assert [0, 0, 0] == kit.results(callers)
    assert [[0], [0]] == gate.batches


def test_calls_with_other_options_do_not_join(kit):
    """A call joins only an item of its own group: one with other options waits."""
    batches = []

    def answer(items, *, n=1):
        batches.append(items)
        wait_until(lambda: gate.is_open())
        return [n for _ in items]

    async def aanswer(items, *, n=1):
        return await asyncio.get_running_loop().run_in_executor(None, lambda: answer(items, n=n))

    _, gate = kit.decorate()
    gate.shut()
    fn = microbatch(aanswer if kit.name == "asyncio" else answer, dedupe="running", concurrency=2)
    first = kit.call(fn, 0)
    wait_until(lambda: batches)
    other = kit.call(fn, 0, n=2)
    wait_until(lambda: len(batches) == 2)
    gate.open()
    assert [1, 2] == kit.results([first, other])


def test_a_call_that_joins_needs_no_room(kit):
    """A call joins also when the queue is full, and takes no room of others."""
    fn, gate, first = held(kit, max_pending=1, on_full="raise")
    callers = [first, *kit.call_waiting(fn, 1, 0, 0)]
    [refused] = kit.errors([kit.call(fn, 2)])
    assert QueueFullError is type(refused)
    gate.open()
    assert [0, 2, 0, 0] == kit.results(callers)
    assert 1 == fn.batch_stats.rejected_items


def test_submit_does_not_wait_for_room(kit):
    """``submit()`` of a call that joins returns at once, and its future cannot be cancelled in a thread."""
    fn, gate, first = held(kit, max_pending=1)
    [waiting] = kit.call_waiting(fn, 1)
    future = kit.run(lambda: fn.submit(0))
    is_left = kit.run(future.cancel)
    assert (kit.name == "asyncio") is is_left
    gate.open()
    assert [0, 2] == kit.results([first, waiting])
    assert is_left or future.result(PATIENCE) == 0
    assert is_left == fn.batch_stats.cancelled_items


def test_a_deadline_is_met(kit):
    """A call that joins counts as started, so its deadline is met."""
    fn, gate, first = held(kit)
    joined = kit.call(fn.options(deadline=0.001), 0)
    late = kit.call(fn.options(deadline=0.001), 1)
    assert TimeoutError in type(late.exception(PATIENCE)).__mro__
    gate.open()
    assert [0, 0] == kit.results([first, joined])


def test_each_caller_gets_its_own_error(kit):
    """An error of the batch reaches the callers that joined, each with an exception object of its own."""

    def fail(items):
        raise ValueError(7)

    fn, gate, first = held(kit, answer=fail)
    callers = [first, *kit.call_waiting(fn, 0)]
    gate.open()
    errors = kit.errors(callers)
    assert [(ValueError, (7,))] * 2 == [(type(error), error.args) for error in errors]
    assert errors[0] is not errors[1]
    assert 2 == fn.batch_stats.failed_items


def test_the_error_of_a_batch_is_isolated(kit):
    """A call that joined gets the result of its item when an error is isolated, and later calls wait."""
    fn, gate = kit.decorate(lambda items: doubled(items) if 1 not in items else 1 / 0, **SHARED, isolate_errors=True)
    gate.shut()
    callers = kit.call_waiting(fn, 0, 1)
    gate.await_batch()
    callers += kit.call_waiting(fn, 0, 1)
    gate.open()
    assert [None, ZeroDivisionError] * 2 == [error and type(error) for error in kit.errors(callers)]
    assert [[0, 1], [0], [1]] == gate.batches
    assert (2, 2, 2) == tuple(
        getattr(fn.batch_stats, field) for field in ("answered_items", "failed_items", "deduped_items")
    )


SHARED = {"dedupe": "running", "max_size": 2, "timeout": HOUR}


def test_with_other_options(kit):
    """Calls join items of mappings and of padded batches, and those whose contexts are captured."""
    fn, gate, first = held(
        kit, answer=lambda items: {item: [item] for item in items}, keyed=True, sizes=(2, 4), capture_context=True
    )
    callers = [first, *kit.call_waiting(fn, 0)]
    gate.open()
    one, other = kit.results(callers)
    assert [0] == one
    assert one is other
    assert [[0, 0]] == gate.batches


def test_callers_of_all_kinds_join():
    """Threads, futures and tasks join the same item of a ``def`` function."""
    kit = Threads()
    try:
        fn, gate, first = held(kit)

        async def join():
            joined = asyncio.gather(fn.acall(0), fn.acall(0))
            await asyncio.sleep(0)
            future = fn.submit(0)
            await asyncio.get_running_loop().run_in_executor(
                None, lambda: wait_until(lambda: fn.batch_stats.running == 4)
            )
            gate.open()
            return [*await joined, future.result(PATIENCE)]

        assert [0, 0, 0] == asyncio.run(join())
        assert (0, [[0]]) == (first.result(PATIENCE), gate.batches)
    finally:
        kit.close()


@pytest.mark.parametrize("kind", [Threads, Tasks])
def test_inline(kind):
    """Inside ``inline()``, each call runs by itself."""
    kit = kind()
    try:
        with inline():
            fn, gate, first = held(kit)
            second = kit.call(fn, 0)
            wait_until(lambda: len(gate.batches) == 2)
            gate.open()
            assert [0, 0] == kit.results([first, second])
    finally:
        kit.close()


# Tasks can leave a batch that runs.


class Slow:
    """A batch function of a second, and a record of its batches."""

    def __init__(self, **options):
        self.batches = []
        self.fn = microbatch(self.run, dedupe="running", **options)

    async def run(self, items):
        self.batches.append(items)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            # It takes time to clean up.
            await asyncio.sleep(1)
            raise
        return doubled(items)


def test_a_call_that_joined_keeps_the_batch_alive():
    """A batch goes on as long as any caller waits, also one that joined it."""

    async def main():
        slow = Slow()
        first = slow.fn.submit(1)
        await asyncio.sleep(0.5)
        joined = asyncio.create_task(slow.fn(1))
        await asyncio.sleep(0)
        first.cancel()
        assert 2 == await joined
        assert [[1]] == slow.batches
        stats = slow.fn.batch_stats
        assert (1, 1, 2) == (stats.answered_items, stats.cancelled_items, counted_calls(stats))

    run(main())


def test_a_batch_is_cancelled_when_all_have_left():
    """A batch is cancelled when all callers have left, also those that joined it."""

    async def main():
        slow = Slow()
        first, joined = slow.fn.submit(1), None
        await asyncio.sleep(0.5)
        joined = slow.fn.submit(1)
        first.cancel()
        joined.cancel()
        await slow.fn.adrain()
        assert (0, 2) == (slow.fn.batch_stats.answered_items, slow.fn.batch_stats.cancelled_items)

    run(main())


@pytest.mark.parametrize("by_callers", [True, False])
def test_a_call_never_joins_a_cancelled_batch(by_callers):
    """A call waits for another batch if the running one was cancelled, by its callers or from outside."""

    async def main():
        slow = Slow(name="slow")
        first = slow.fn.submit(1)
        await asyncio.sleep(0.5)
        if by_callers:
            first.cancel()
        else:
            [task] = [task for task in asyncio.all_tasks() if task.get_name() == "slow"]
            task.cancel()
        assert 2 == await slow.fn(1)
        assert [[1], [1]] == slow.batches
        with suppress(asyncio.CancelledError, RuntimeError):
            await first

    run(main())


def test_other_values_are_refused():
    """A value that is no choice is refused, with the choices."""
    with pytest.raises(ValueError, match=r"^dedupe must be 'waiting' or 'running', got 'always'$"):
        microbatch(doubled, dedupe="always")
    with pytest.raises(TypeError, match=r"^dedupe must be True or False, got 1 of type int$"):
        microbatch(doubled, dedupe=1)
