"""The fault table, continued: callers that cancel or time out, and futures that are cancelled or have callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random

import pytest

from batchify import ReentrantCallError
from tests.kit.columns import Acall, Blocking, Debug, OnUvloop, Table, check
from tests.kit.engines import doubled

table = Table()


async def assert_cancelled(column, *callers):
    """Assert that callers were cancelled."""
    assert [asyncio.CancelledError] * len(callers) == [type(error) for error in await column.errors(callers)]


def has_tasks(column):
    return column.tasks


@table.row(
    "caller cancelled before it starts",
    "No item is queued.",
    where=has_tasks,
)
async def cancelled_before_start(column):
    column.build()
    caller = column.attempt(1)
    caller.cancel()
    await assert_cancelled(column, caller)
    assert 0 == column.counted_calls()


@table.row(
    "caller cancelled while it waits",
    "Its item does not run, and another item takes its place in the batch.",
    where=has_tasks,
)
async def cancelled_while_waiting(column):
    column.build()
    (leaving,) = await column.call(1)
    leaving.cancel()
    await assert_cancelled(column, leaving)
    assert (0, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "caller cancelled in the loop iteration of its call",
    "Its place is free in the next iteration, and the next batch is full without it.",
    1,
    where=has_tasks,
)
@table.row(
    "caller cancelled in the loop iteration after its call",
    "Its place is free in the next iteration, and the next batch is full without it.",
    2,
    where=has_tasks,
)
async def cancelled_soon_after_its_call(column, iterations):
    column.build(max_size=3)
    leaving, staying = column.attempt(1), column.attempt(2)
    column.calls += 2
    for _ in range(iterations):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    assert (1, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6, 8] == await column.answers([staying, *await column.call(3, 4)])
    assert [[2, 3, 4]] == column.batches


@table.row(
    "flush in the loop iteration of a call",
    "The call leaves with the others.",
    where=has_tasks,
)
async def flushed_in_the_iteration_of_the_call(column):
    column.build(max_size=3)
    callers = await column.call(1)
    callers.append(column.attempt(2))
    column.calls += 1
    await asyncio.sleep(0)
    column.flush()
    assert [2, 4] == await column.answers(callers)
    assert [[1, 2]] == column.batches


@table.row(
    "caller cancelled just before its batch starts",
    "Its item does not run, although the caller has not seen its cancellation when the batch starts.",
    where=has_tasks,
)
async def cancelled_before_departure(column):
    column.build(max_size=3)
    leaving, staying = await column.call(1, 2)
    leaving.cancel()
    column.flush()
    assert [4] == await column.answers([staying])
    await assert_cancelled(column, leaving)
    assert [[2]] == column.batches


@table.row(
    "all callers cancelled just before their batch starts",
    "The batch function is not called.",
    where=has_tasks,
)
async def all_cancelled_before_departure(column):
    column.build(max_size=3)
    callers = await column.call(1, 2)
    for caller in callers:
        caller.cancel()
    column.flush()
    await assert_cancelled(column, *callers)
    assert [] == column.batches


@table.row(
    "caller cancelled just after its batch started",
    "The other caller gets its result.",
    where=has_tasks,
)
async def cancelled_after_departure(column):
    column.build(max_size=3)
    leaving, staying = await column.call(1, 2)
    column.flush()
    leaving.cancel()
    assert [4] == await column.answers([staying])
    await assert_cancelled(column, leaving)


@table.row(
    "all callers cancelled just after their batch started",
    "The callers are cancelled, and no batch continues to run.",
    where=has_tasks,
)
async def all_cancelled_after_departure(column):
    column.build(max_size=3)
    callers = await column.call(1, 2)
    column.flush()
    for caller in callers:
        caller.cancel()
    await assert_cancelled(column, *callers)
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items + column.stats.answered_items


@table.row(
    "caller cancelled while its batch runs",
    "Its result is dropped, and the other caller gets its own result.",
    where=has_tasks,
)
async def cancelled_while_running(column):
    column.build()
    column.shut()
    leaving, staying = await column.call(1, 2)
    await column.at_gate()
    leaving.cancel()
    await assert_cancelled(column, leaving)
    column.open()
    assert [4] == await column.answers([staying])
    assert (1, 1) == (column.stats.cancelled_items, column.stats.answered_items)


@table.row(
    "caller cancelled while its batch fails",
    "Its error is dropped, and the other caller gets its own error.",
    where=has_tasks,
)
async def cancelled_while_failing(column):
    def fail(items):
        raise KeyError

    column.build(fail)
    column.shut()
    leaving, staying = await column.call(1, 2)
    await column.at_gate()
    leaving.cancel()
    column.open()
    assert [KeyError] == [type(error) for error in await column.errors([staying])]
    await assert_cancelled(column, leaving)
    assert (1, 1) == (column.stats.cancelled_items, column.stats.failed_items)


@table.row(
    "all callers cancelled while their batch runs",
    "A batch on a loop is cancelled and frees its slot; a batch in a thread completes. The next batch runs.",
    where=has_tasks,
)
async def all_cancelled_while_running(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    others = await column.call(3, 4)
    for caller in callers:
        caller.cancel()
    await assert_cancelled(column, *callers)
    if column.on_loop:
        await column.at_gate(2)
    column.open()
    assert [6, 8] == await column.answers(others)
    assert 2 == column.stats.cancelled_items


@table.row(
    "caller cancelled at the moment of its answer",
    "The caller is cancelled, and the other caller gets its result.",
    where=has_tasks,
)
async def cancelled_when_answered(column):
    def cancel_and_double(items):
        column.loop.call_soon_threadsafe(leaving.cancel)
        return doubled(items)

    column.build(cancel_and_double)
    column.shut()
    leaving, staying = await column.call(1, 2)
    column.open()
    assert [4] == await column.answers([staying])
    await assert_cancelled(column, leaving)


@table.row(
    "caller times out while it waits",
    "The caller gets a ``TimeoutError``, and its item does not run.",
    where=has_tasks,
)
async def timing_out_waiting(column):
    column.build()
    column.calls += 1
    caller = column.caller(lambda: asyncio.wait_for(column.ask(1), 0.01))
    assert [asyncio.TimeoutError] == [type(error) for error in await column.errors([caller])]
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "caller times out while its batch runs",
    "The caller gets a ``TimeoutError``, and the other caller gets its result.",
    where=has_tasks,
)
async def timing_out_running(column):
    column.build()
    column.shut()
    (staying,) = await column.call(1)
    column.calls += 1
    running = column.loop.create_task(column.ask(2))
    await column.at_gate()
    caller = column.caller(lambda: asyncio.wait_for(running, 0.01))
    assert [asyncio.TimeoutError] == [type(error) for error in await column.errors([caller])]
    column.open()
    assert [2] == await column.answers([staying])


@table.row(
    "coroutine closed while it waits",
    "Its item is removed from the queue.",
    where=has_tasks,
)
async def closed_while_waiting(column):
    column.build()
    coroutine = column.ask(1)
    coroutine.send(None)
    coroutine.close()
    column.calls += 1
    assert (0, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "coroutine closed while its batch runs",
    "The other caller gets its result.",
    where=has_tasks,
)
async def closed_while_running(column):
    column.build()
    column.shut()
    coroutine = column.ask(1)
    coroutine.send(None)
    column.calls += 1
    (staying,) = await column.call(2)
    await column.at_gate()
    coroutine.close()
    column.open()
    assert [4] == await column.answers([staying])


@table.row(
    "coroutine never awaited",
    "Python warns, and no item is queued.",
    where=has_tasks,
)
async def never_awaited(column):
    column.build()
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        column.ask(1)
    assert 0 == column.counted_calls()


def has_futures(column):
    # With ``acall``, ``submit()`` returns a future of the thread engine, which the thread columns test.
    return not issubclass(column, Acall)


@table.row(
    "future cancelled while it waits",
    "Its item does not run, and another item takes its place in the batch.",
    where=has_futures,
)
async def future_cancelled_while_waiting(column):
    column.build()
    leaving = column.submit(1)
    assert leaving.cancel()
    await column.until(lambda: column.stats.cancelled_items == 1)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "future cancelled between others",
    "Its place is free at once, and the next batch is full without it.",
    where=has_futures,
)
async def future_cancelled_between_others(column):
    column.build(max_size=4)
    first, leaving, third = (column.submit(item) for item in (1, 2, 3))
    assert leaving.cancel()
    assert (2, 1) == (column.stats.pending, column.stats.cancelled_items)
    later = column.submit(4), column.submit(5)
    assert [2, 6, 8, 10] == [await column.awaited(future) for future in (first, third, *later)]
    assert [[1, 3, 4, 5]] == column.batches


@table.row(
    "future cancelled just before its batch starts",
    "Its item does not run.",
    where=has_futures,
)
async def future_cancelled_before_departure(column):
    column.build(max_size=3)
    leaving, staying = column.submit(1), column.submit(2)
    leaving.cancel()
    column.flush()
    assert 4 == await column.awaited(staying)
    assert [[2]] == column.batches


@table.row(
    "future cancelled while its batch runs",
    "A future of a loop is cancelled; a future of a thread cannot be. The other future gets its result.",
    where=has_futures,
)
async def future_cancelled_while_running(column):
    column.build()
    column.shut()
    leaving, staying = column.submit(1), column.submit(2)
    await column.at_gate()
    assert column.tasks == leaving.cancel()
    column.open()
    assert 4 == await column.awaited(staying)
    assert column.tasks == leaving.cancelled()
    assert column.tasks == column.stats.cancelled_items


@table.row(
    "all futures cancelled while their batch runs",
    "The batch is cancelled and frees its slot, unless it runs in a thread.",
    where=lambda column: column.tasks and column.on_loop and has_futures(column),
)
async def all_futures_cancelled_while_running(column):
    column.build()
    column.shut()
    leaving = [column.submit(1), column.submit(2)]
    await column.at_gate()
    for future in leaving:
        future.cancel()
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items


@table.row(
    "future cancelled after its answer",
    "The future keeps its result.",
    where=has_futures,
)
async def future_cancelled_after_answer(column):
    column.build()
    answered = [column.submit(1), column.submit(2)]
    for future in answered:
        await column.awaited(future)
    assert [False, False] == [future.cancel() for future in answered]
    assert [2, 4] == [future.result() for future in answered]


@table.row(
    "future gets a result from its owner",
    "The future keeps the result that its owner set, and the other future gets its own.",
    where=has_futures,
)
async def future_answered_by_owner(column):
    column.build()
    column.shut()
    mine, other = column.submit(1), column.submit(2)
    await column.at_gate()
    mine.set_result("mine")
    column.open()
    assert ("mine", 4) == (mine.result(), await column.awaited(other))


async def assert_order_after_cancellations(column, enter):
    """Cancel all but 250 of 5,000 waiting calls, in a random order; the others are answered in order."""
    column.build(max_size=100, timeout=None)
    column.shut()
    enter(0)
    await column.at_gate()
    callers = [enter(item) for item in range(1, 5001)]
    await column.until(lambda: column.stats.pending == 5000)
    leaving = random.Random(1).sample(range(1, 5001), 4750)
    for item in leaving:
        callers[item - 1].cancel()
    await column.until(lambda: column.stats.cancelled_items == 4750)
    assert 250 == column.stats.pending
    staying = sorted({*range(1, 5001)} - {*leaving})
    answered = []
    for item in staying:
        callers[item - 1].add_done_callback(lambda _, item=item: answered.append(item))
    column.open()
    await column.until(lambda: len(answered) == 250)
    assert staying == answered
    assert [[0], staying[:100], staying[100:200], staying[200:]] == column.batches


def is_on_usual_loop(column):
    # Thousands of calls take long in debug mode, and do not depend on the loop.
    return not issubclass(column, (Debug, OnUvloop))


@table.row(
    "most of 5,000 waiting callers cancelled",
    "The others are answered in order, in full batches.",
    where=lambda column: has_tasks(column) and is_on_usual_loop(column),
)
async def most_callers_cancelled(column):
    def enter(item):
        column.calls += 1
        return column.attempt(item)

    await assert_order_after_cancellations(column, enter)


@table.row(
    "most of 5,000 waiting futures cancelled",
    "The others get their results in order, in full batches.",
    where=lambda column: has_futures(column) and is_on_usual_loop(column),
)
async def most_futures_cancelled(column):
    await assert_order_after_cancellations(column, column.submit)


@table.row(
    "result(timeout) runs out",
    "The item stays queued, and its future gets the result later.",
    where=lambda column: issubclass(column, Blocking),
)
async def result_times_out(column):
    column.build()
    future = column.submit(1)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0)
    column.flush()
    assert 2 == await column.awaited(future)


@table.row(
    "callback of a future raises",
    "The error is logged, and both futures have their results.",
    where=has_futures,
)
async def callback_raises(column):
    column.build()
    first = column.submit(1)
    first.add_done_callback(lambda _: 1 / 0)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    column.log = ["Exception in callback" if column.tasks else "exception calling callback"]


@table.row(
    "callback of a future raises SystemExit",
    "The error stops a loop, as in asyncio, and is logged in a thread; both futures have their results.",
    where=has_futures,
)
async def callback_exits(column):
    def exit_process(_):
        raise SystemExit

    column.build()
    first = column.submit(1)
    first.add_done_callback(exit_process)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    await column.until(lambda: column.tasks == len(column.escaped))
    column.escaped.clear()
    column.log = [] if column.tasks else ["a callback of a future raised"]


@table.row(
    "callback of a future waits for another call",
    "The call is refused, since it would wait for its own thread; both futures have their results.",
    where=lambda column: issubclass(column, Blocking),
)
async def callback_calls(column):
    refused = []

    def call_again(_):
        try:
            column.ask(3)
        except ReentrantCallError as error:
            refused.append(error)

    column.build()
    first = column.submit(1)
    first.add_done_callback(call_again)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    assert 1 == len(refused)


@table.row(
    "callback of a future closes the batcher",
    "Queued items run, and the callback does not wait for its own thread.",
    where=lambda column: issubclass(column, Blocking),
)
async def callback_closes(column):
    column.build()
    column.shut()
    first, second = column.submit(1), column.submit(2)
    first.add_done_callback(lambda _: column.close())
    await column.at_gate()
    later = await column.call(3)
    column.closed = True
    column.open()
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    assert [6] == await column.answers(later)


@table.row(
    "callback of a future submits an item",
    "The submitted item gets its result like any other.",
    where=has_futures,
)
async def callback_submits(column):
    later = []
    column.build()
    first = column.submit(1)
    first.add_done_callback(lambda _: later.append(column.submit(3)))
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    await column.until(lambda: later)
    column.flush()
    assert 6 == await column.awaited(later[0])


@pytest.mark.parametrize(("fault", "column"), table.cells())
def test_fault(fault, column, caplog):
    """Every caller gets the answer that its row promises, the batcher still works, and every call is counted."""
    check(fault, column, caplog)
