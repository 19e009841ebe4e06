"""The fault table, continued: callers that leave, and futures that are cancelled or have callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

from batchify import ReentrantCallError
from tests.kit.columns import Acall, Blocking, Table, check
from tests.kit.engines import doubled

table = Table()


async def cancelled(column, *callers):
    """Assert that callers were cancelled."""
    assert [asyncio.CancelledError] * len(callers) == [type(error) for error in await column.errors(callers)]


def tasks(column):
    return column.tasks


@table.row(
    "caller cancelled before it starts",
    "Nothing is queued.",
    where=tasks,
)
async def cancelled_before_start(column):
    column.build()
    caller = column.attempt(1)
    caller.cancel()
    await cancelled(column, caller)
    assert 0 == column.counted_calls()


@table.row(
    "caller cancelled while it waits",
    "Its item is never run, and its place is free.",
    where=tasks,
)
async def cancelled_while_waiting(column):
    column.build()
    (gone,) = await column.call(1)
    gone.cancel()
    await cancelled(column, gone)
    assert (0, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "caller cancelled just before its batch leaves",
    "Its item is not run, although it is not cancelled yet when its batch leaves.",
    where=tasks,
)
async def cancelled_before_departure(column):
    column.build(max_size=3)
    gone, stays = await column.call(1, 2)
    gone.cancel()
    column.flush()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)
    assert [[2]] == column.batches


@table.row(
    "all callers cancelled just before their batch leaves",
    "The batch function is not called.",
    where=tasks,
)
async def all_cancelled_before_departure(column):
    column.build(max_size=3)
    callers = await column.call(1, 2)
    for caller in callers:
        caller.cancel()
    column.flush()
    await cancelled(column, *callers)
    assert [] == column.batches


@table.row(
    "caller cancelled just after its batch left",
    "Its neighbour is answered.",
    where=tasks,
)
async def cancelled_after_departure(column):
    column.build(max_size=3)
    gone, stays = await column.call(1, 2)
    column.flush()
    gone.cancel()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)


@table.row(
    "all callers cancelled just after their batch left",
    "They are cancelled, and no batch goes on running.",
    where=tasks,
)
async def all_cancelled_after_departure(column):
    column.build(max_size=3)
    callers = await column.call(1, 2)
    column.flush()
    for caller in callers:
        caller.cancel()
    await cancelled(column, *callers)
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items + column.stats.answered_items


@table.row(
    "caller cancelled while its batch runs",
    "Its result is dropped, and its neighbour gets its own.",
    where=tasks,
)
async def cancelled_while_running(column):
    column.build()
    column.shut()
    gone, stays = await column.call(1, 2)
    await column.at_gate()
    gone.cancel()
    await cancelled(column, gone)
    column.open()
    assert [4] == await column.answers([stays])
    assert (1, 1) == (column.stats.cancelled_items, column.stats.answered_items)


@table.row(
    "caller cancelled while its batch fails",
    "Its error is dropped, and its neighbour gets its own.",
    where=tasks,
)
async def cancelled_while_failing(column):
    def fail(items):
        raise KeyError

    column.build(fail)
    column.shut()
    gone, stays = await column.call(1, 2)
    await column.at_gate()
    gone.cancel()
    column.open()
    assert [KeyError] == [type(error) for error in await column.errors([stays])]
    await cancelled(column, gone)
    assert (1, 1) == (column.stats.cancelled_items, column.stats.failed_items)


@table.row(
    "all callers cancelled while their batch runs",
    "A batch on a loop is cancelled and frees its slot; a batch in a thread ends as usual. The next is answered.",
    where=tasks,
)
async def all_cancelled_while_running(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    neighbours = await column.call(3, 4)
    for caller in callers:
        caller.cancel()
    await cancelled(column, *callers)
    if column.on_loop:
        await column.at_gate(2)
    column.open()
    assert [6, 8] == await column.answers(neighbours)
    assert 2 == column.stats.cancelled_items


@table.row(
    "caller cancelled at the moment of its answer",
    "It is cancelled, and its neighbour has its answer.",
    where=tasks,
)
async def cancelled_when_answered(column):
    def cancel_and_double(items):
        column.loop.call_soon_threadsafe(gone.cancel)
        return doubled(items)

    column.build(cancel_and_double)
    column.shut()
    gone, stays = await column.call(1, 2)
    column.open()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)


@table.row(
    "caller times out while it waits",
    "It gets its timeout, and its item is never run.",
    where=tasks,
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
    "It gets its timeout, and its neighbour gets its result.",
    where=tasks,
)
async def timing_out_running(column):
    column.build()
    column.shut()
    (stays,) = await column.call(1)
    column.calls += 1
    running = column.loop.create_task(column.ask(2))
    await column.at_gate()
    caller = column.caller(lambda: asyncio.wait_for(running, 0.01))
    assert [asyncio.TimeoutError] == [type(error) for error in await column.errors([caller])]
    column.open()
    assert [2] == await column.answers([stays])


@table.row(
    "coroutine closed while it waits",
    "Its item is removed.",
    where=tasks,
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
    "Its neighbour is answered.",
    where=tasks,
)
async def closed_while_running(column):
    column.build()
    column.shut()
    coroutine = column.ask(1)
    coroutine.send(None)
    column.calls += 1
    (stays,) = await column.call(2)
    await column.at_gate()
    coroutine.close()
    column.open()
    assert [4] == await column.answers([stays])


@table.row(
    "coroutine never awaited",
    "Python warns, and nothing is queued.",
    where=tasks,
)
async def never_awaited(column):
    column.build()
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        column.ask(1)
    assert 0 == column.counted_calls()


def futures(column):
    # ``submit`` of a function that is called through ``acall`` returns a future of the thread engine.
    return not issubclass(column, Acall)


@table.row(
    "future cancelled while it waits",
    "Its item is never run, and its place is free.",
    where=futures,
)
async def future_cancelled_while_waiting(column):
    column.build()
    gone = column.submit(1)
    assert gone.cancel()
    await column.until(lambda: column.stats.cancelled_items == 1)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row(
    "future cancelled just before its batch leaves",
    "It is not run.",
    where=futures,
)
async def future_cancelled_before_departure(column):
    column.build(max_size=3)
    gone, stays = column.submit(1), column.submit(2)
    gone.cancel()
    column.flush()
    assert 4 == await column.awaited(stays)
    assert [[2]] == column.batches


@table.row(
    "future cancelled while its batch runs",
    "A future of a loop is cancelled and its result dropped; one of a thread cannot be. Its neighbour is answered.",
    where=futures,
)
async def future_cancelled_while_running(column):
    column.build()
    column.shut()
    gone, stays = column.submit(1), column.submit(2)
    await column.at_gate()
    assert column.tasks == gone.cancel()
    column.open()
    assert 4 == await column.awaited(stays)
    assert column.tasks == gone.cancelled()
    assert column.tasks == column.stats.cancelled_items


@table.row(
    "all futures cancelled while their batch runs",
    "The batch is cancelled, and frees its slot.",
    where=lambda column: column.tasks and futures(column),
)
async def all_futures_cancelled_while_running(column):
    column.build()
    column.shut()
    gone = [column.submit(1), column.submit(2)]
    await column.at_gate()
    for future in gone:
        future.cancel()
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items


@table.row(
    "future cancelled after its answer",
    "It keeps its answer.",
    where=futures,
)
async def future_cancelled_after_answer(column):
    column.build()
    answered = [column.submit(1), column.submit(2)]
    for future in answered:
        await column.awaited(future)
    assert [False, False] == [future.cancel() for future in answered]
    assert [2, 4] == [future.result() for future in answered]


@table.row(
    "future answered by its owner",
    "It keeps the result of its owner, and its neighbour is answered.",
    where=futures,
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
    "The item keeps its place, and is answered later.",
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
    "The caller of the callback logs the error, and the neighbours are answered.",
    where=futures,
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
    "The error ends a loop, as in asyncio, and is logged in a thread; the neighbours are answered.",
    where=futures,
)
async def callback_exits(column):
    def leave(_):
        raise SystemExit

    column.build()
    first = column.submit(1)
    first.add_done_callback(leave)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    await column.until(lambda: column.tasks == len(column.escaped))
    column.escaped.clear()
    column.log = [] if column.tasks else ["a callback of a future raised"]


@table.row(
    "callback of a future waits for another call",
    "The call is refused, since it waits for its own thread; the neighbours are answered.",
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
    "Waiting items are run, and the callback does not wait for its own thread.",
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
    "callback of a future submits",
    "Its item is answered like any other.",
    where=futures,
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
    """Every caller is answered as its row promises, the batcher works afterwards, and every call is counted."""
    check(fault, column, caplog)
