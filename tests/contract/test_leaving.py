"""The fault table, continued: callers that cancel or time out, and futures that are cancelled or have callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

from batchify import ReentrantCallError
from tests.kit.columns import Acall, Blocking, Table, check
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
    "The batch is cancelled and frees its slot.",
    where=lambda column: column.tasks and has_futures(column),
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
