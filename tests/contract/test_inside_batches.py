"""The fault table, continued: batch functions that use their own batcher, their own task or context variables."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from random import Random

import pytest

from batchify import BatchAbortedError, BatcherClosedError, BatchResultError, ReentrantCallError, _bridge, current_batch
from tests.kit.columns import Acall, AsyncClassOfDef, Blocking, Raised, Returned, Table, check
from tests.kit.engines import HOUR, doubled

table = Table()


def on_loop(column):
    """Return whether the batch function runs on the loop."""
    return column.on_loop


def in_thread(column):
    """Return whether the batch function runs in a worker of the thread engine."""
    return issubclass(column, (Blocking, Acall))


async def in_task(coroutine):
    return await asyncio.create_task(coroutine)


async def ask_on_any_loop(column, item):
    """Return the result for an item; the running loop may be another one than that of the column."""
    ask = getattr(column.fn, "acall", None) or partial(_bridge.acall, column.fn)
    return await ask(item)


# The ways to call a batch function from inside its own batch, on a loop or in a thread, that the engine detects.
RECURSION = [
    ("directly", on_loop, lambda column: column.ask(3)),
    ("through another task", on_loop, lambda column: in_task(column.ask(3))),
    ("through submit", on_loop, lambda column: column.put(3)),
    ("through map", on_loop, lambda column: column.map([3])),
    ("directly", in_thread, lambda column: column.fn(3) if isinstance(column, Acall) else column.ask(3)),
    ("through acall", in_thread, lambda column: asyncio.run(ask_on_any_loop(column, 3))),
    ("through submit", in_thread, lambda column: column.put(3).result()),
    ("through map", in_thread, lambda column: column.map([3])),
    (
        "on the loop of its callers",
        lambda column: issubclass(column, AsyncClassOfDef),
        lambda column: asyncio.run_coroutine_threadsafe(column.ask(3), column.loop).result(),
    ),
]


async def recursing(column, call):
    async def recurse_on_loop(items):
        return [await call(column)] * len(items)

    column.build(recurse_on_loop if column.on_loop else lambda items: [call(column)] * len(items))
    expected = (
        "double() was called with one item from inside its own batch, and would wait for itself; "
        "call the batch function with a list instead: double.__wrapped__([item])"
    )
    errors = await column.errors(await column.call(1, 2))
    assert [(ReentrantCallError, expected)] * 2 == [(type(error), str(error)) for error in errors]
    assert [[1, 2]] == column.batches


for how, where, call in RECURSION:
    promise = "The call is refused at once, because it would deadlock, and the callers get its error."
    table.row(f"batch calls its own function {how}", promise, call, where=where)(recursing)


@table.row(
    "batch calls its own function on a new loop",
    "Each loop has its own queue and batches, so that the call does not wait for the outer batch.",
    where=lambda column: issubclass(column, AsyncClassOfDef),
)
async def recursing_on_new_loop(column):
    def count_down(items):
        return [asyncio.run(column.ask(item - 1)) if item else "done" for item in items]

    column.build(count_down, max_size=1)
    assert ["done"] == await column.answers([column.attempt(2)])
    column.calls = 3


@table.row("batch flushes its batcher", "Queued items start when the slot is free.")
async def flushing(column):
    column.build(lambda items: column.flush() or doubled(items))
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    callers += await column.call(3)
    column.open()
    assert [2, 4, 6] == await column.answers(callers)
    assert [[1, 2], [3]] == column.batches


CLOSING = [
    ("with aclose", on_loop, lambda column: column.aclose()),
    ("with aclose in another task", on_loop, lambda column: in_task(column.aclose())),
    ("with close", lambda column: not column.on_loop, lambda column: column.close()),
    ("with aclose on another loop", lambda column: not column.on_loop, lambda column: asyncio.run(column.aclose())),
]


async def closing_inside(column, close):
    async def close_on_loop(items):
        await close(column)
        return doubled(items)

    def close_in_thread(items):
        close(column)
        return doubled(items)

    column.build(close_on_loop if column.on_loop else close_in_thread)
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    callers += await column.call(3)
    column.open()
    assert [2, 4, 6] == await column.answers(callers)
    assert [BatcherClosedError] == [type(error) for error in await column.errors([column.attempt(4)])]
    column.closed = True


for how, where, close in CLOSING:
    promise = "Queued items run, closing does not wait for the batch itself, and later calls are refused."
    table.row(f"batch closes its batcher {how}", promise, close, where=where)(closing_inside)


@table.row(
    "batch calls close() on its loop",
    "``close()`` raises an error that names the method to use instead, and the callers get it.",
    where=on_loop,
)
async def closing_on_loop(column):
    column.build(lambda items: column.close())
    expected = "double.close() would block the event loop that has to run its batches; use: await aclose()"
    errors = await column.errors(await column.call(1, 2))
    assert [(RuntimeError, expected)] * 2 == [(type(error), str(error)) for error in errors]


@table.row(
    "closed while all callers cancel",
    "Closing completes when no caller remains.",
    where=lambda column: column.tasks,
)
async def closing_without_callers(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    callers += await column.call(3)
    closing = column.loop.create_task(column.aclose())
    await column.until(lambda: not column.is_running)
    for caller in callers:
        caller.cancel()
    column.open()
    await closing
    column.closed = True


@table.row("closing is cancelled", "The callers get their results, and a second close completes.")
async def closing_cancelled(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    callers += await column.call(3)
    closing = column.loop.create_task(column.aclose())
    await column.until(lambda: not column.is_running)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    column.open()
    assert [2, 4, 6] == await column.answers(callers)
    await column.aclose()
    column.closed = True


@table.row("closed by several tasks at once", "All of them return when every caller has its result.")
async def closing_together(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    callers += await column.call(3)
    closing = [column.loop.create_task(column.aclose()) for _ in range(5)]
    await column.until(lambda: not column.is_running)
    column.open()
    await asyncio.gather(*closing)
    assert 3 == column.stats.answered_items
    assert [2, 4, 6] == await column.answers(callers)
    column.closed = True


@table.row("closed while its batch fails", "The callers get the error, and closing completes.")
async def closing_failing(column):
    def fail(items):
        raise KeyError

    column.build(fail)
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    closing = column.loop.create_task(column.aclose())
    await column.until(lambda: not column.is_running)
    column.open()
    await closing
    assert [KeyError, KeyError] == [type(error) for error in await column.errors(callers)]
    column.closed = True


@table.row(
    "started again while it stops",
    "Calls after the start get their results, and stopping completes.",
    where=lambda column: column.restarts,
)
async def restarting(column):
    column.build()
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    stopping = column.loop.create_task(column.aclose())
    await column.until(lambda: not column.is_running)
    starting = column.loop.create_task(column.start())
    column.open()
    assert [2, 4] == await column.answers(callers)
    await asyncio.gather(stopping, starting)
    callers = await column.call(3)
    column.flush()
    assert [6] == await column.answers(callers)
    assert column.is_running


@table.row(
    "started and stopped twenty times",
    "Each call before a stop gets its result, and each call after it is refused.",
    where=lambda column: column.restarts,
)
async def cycling(column):
    column.build()
    for _ in range(20):
        callers = await column.call(1, 2, 3)
        await column.aclose()
        assert [2, 4, 6] == await column.answers(callers)
        assert [BatcherClosedError] == [type(error) for error in await column.errors([column.attempt(4)])]
        await column.start()


@table.row("closing races with calls", "Each call gets its result or is refused, and closing completes.")
async def racing(column):
    for turn in range(25):
        column.build(max_size=4, timeout=None)
        callers = [column.attempt(item) for item in range(8)]
        for _ in range(turn % 4):
            await asyncio.sleep(0)
        closing = [column.loop.create_task(column.aclose()) for _ in range(2)]
        callers += [column.attempt(item) for item in range(8)]
        await asyncio.gather(*closing)
        outcomes = [await column.outcome(caller) for caller in callers]
        for item, outcome in zip([*range(8), *range(8)], outcomes, strict=True):
            answer = outcome.value if isinstance(outcome, Returned) else type(outcome.error)
            assert answer in (2 * item, BatcherClosedError)
        answered = sum(isinstance(outcome, Returned) for outcome in outcomes)
        assert answered == column.stats.answered_items == column.counted_calls()
        column.calls = answered
    column.closed = True


async def wait_forever():
    await asyncio.get_running_loop().create_future()


@table.row(
    "batch ignores its cancellation after all callers have cancelled",
    "The slot is free when the batch ends, and the next batch runs.",
    where=on_loop,
)
async def ignoring_cancellation(column):
    async def ignore(items):
        with suppress(asyncio.CancelledError):
            await wait_forever()
        return doubled(items)

    column.build(ignore)
    callers = await column.call(1, 2)
    await column.at_gate()
    for caller in callers:
        caller.cancel()
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items


@table.row("batch ignores a cancellation by other code", "Its callers get their results.", where=on_loop)
async def ignoring_cancellation_by_others(column):
    async def ignore(items):
        column.loop.call_soon(asyncio.current_task().cancel)
        with suppress(asyncio.CancelledError):
            await wait_forever()
        return doubled(items)

    column.build(ignore)
    assert [2, 4] == await column.answers(await column.call(1, 2))


@table.row(
    "batch fails when it is cancelled after all callers have cancelled",
    "No caller gets the error, and the engine logs nothing.",
    where=on_loop,
)
async def failing_without_callers(column):
    async def fail(items):
        try:
            await wait_forever()
        finally:
            raise KeyError

    column.build(fail)
    callers = await column.call(1, 2)
    await column.at_gate()
    for caller in callers:
        caller.cancel()
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items


@table.row("batch cancels its own task and returns", "Its callers get their results.", where=on_loop)
async def cancelling_itself(column):
    async def cancel(items):
        asyncio.current_task().cancel()
        return doubled(items)

    column.build(cancel)
    assert [2, 4] == await column.answers(await column.call(1, 2))


async def assert_aborted(column, answer):
    column.build(answer)
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    others = await column.call(3)
    column.open()
    errors = await column.errors(callers)
    expected = "the batch of double() was ended by CancelledError before its callers had their results"
    assert [(BatchAbortedError, expected)] * 2 == [(type(error), str(error)) for error in errors]
    assert all(isinstance(error.__cause__, asyncio.CancelledError) for error in errors)
    column.answer = doubled
    column.flush()
    assert [6] == await column.answers(others)


ABORTS = "Its callers get a ``BatchAbortedError`` and are not cancelled. The next batch runs."


@table.row("batch cancels its own task and waits", ABORTS, where=on_loop)
async def cancelling_itself_to_wait(column):
    async def cancel(items):
        asyncio.current_task().cancel()
        await wait_forever()

    await assert_aborted(column, cancel)


@table.row("other code cancels the batch", ABORTS, where=on_loop)
async def cancelled_by_others(column):
    async def be_cancelled(items):
        column.loop.call_soon(asyncio.current_task().cancel)
        await wait_forever()

    await assert_aborted(column, be_cancelled)


@table.row("batch waits for itself", "asyncio raises an error, and the callers get it.", where=on_loop)
async def awaiting_itself(column):
    async def wait(items):
        await asyncio.current_task()

    column.build(wait)
    errors = await column.errors(await column.call(1, 2))
    assert [RuntimeError, RuntimeError] == [type(error) for error in errors]


class Awaitable:
    """Can be awaited, and is neither a coroutine nor a future."""

    def __init__(self, result, *awaited):
        self.result = result
        self.awaited = awaited

    def __await__(self):
        yield from self.awaited
        return self.result


@table.row("batch awaits an invalid object", "asyncio raises an error, and the callers get it.", where=on_loop)
async def awaiting_invalid_object(column):
    async def wait(items):
        return await Awaitable(items, "not a future")

    column.build(wait)
    errors = await column.errors(await column.call(1, 2))
    assert [RuntimeError, RuntimeError] == [type(error) for error in errors]


@table.row("batch returns an awaitable", "The engine does not await it, and refuses it as a result.")
async def returning_awaitable(column):
    column.build(Awaitable)
    expected = "double() was given 2 items and returned an Awaitable, which has no length"
    for error in await column.errors(await column.call(1, 2)):
        assert (BatchResultError, expected) == (type(error), str(error).partition(";")[0])


class Callable:
    """A callable object that raises when code tests it for truth, prints it or hashes it."""

    def __init__(self, call):
        self.call = call

    def __len__(self):
        raise AssertionError

    __bool__ = __repr__ = __len__
    __hash__ = None

    def __call__(self, items):
        return self.call(items)


class AsyncCallable(Callable):
    """The same with an ``async def`` call."""

    async def __call__(self, items):
        return await self.call(items)


@table.row("batch function is an object without a truth value", "The engine calls it like any other.")
async def calling_object(column):
    column.build_of((AsyncCallable if column.on_loop else Callable)(column.batch_function()), max_size=2, name="double")
    assert [2, 4] == await column.answers(await column.call(1, 2))


@table.row(
    "batch function returns an awaitable that is not a coroutine",
    "The engine awaits it if the function is marked as a coroutine function.",
    where=lambda column: column.on_loop and sys.version_info >= (3, 12),
)
async def returning_no_coroutine(column):
    import inspect

    call = column.batch_function()
    function = inspect.markcoroutinefunction(lambda items: column.loop.create_task(call(items)))
    column.build_of(function, max_size=2, name="double")
    assert [2, 4] == await column.answers(await column.call(1, 2))


@contextmanager
def no_threads():
    """Make every start of a worker thread of the batcher fail."""
    start = threading.Thread.start

    def fail(thread):
        if thread.name.startswith("double"):
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    threading.Thread.start = fail
    yield
    threading.Thread.start = start


@table.row(
    "no thread can be started",
    "The callers get the error, their items do not run, and the next call starts a thread.",
    where=lambda column: not column.on_loop,
)
async def without_threads(column):
    column.build()
    with no_threads():
        callers = [column.attempt(0), column.attempt(0)]
        column.calls += 2
        errors = await column.errors(callers)
    assert [(RuntimeError, "can't start new thread")] * 2 == [(type(error), str(error)) for error in errors]
    assert [2, 4] == await column.answers(await column.call(1, 2))
    assert [[1, 2]] == column.batches


async def without_second_thread(column, leave):
    column.build(concurrency=2)
    column.shut()
    callers = await column.call(1, 2)
    await column.at_gate()
    with no_threads():
        callers += await column.call(3)
        leaving = leave(column)
        await column.until(lambda: leaving.done() or not column.is_running)
    column.open()
    assert [2, 4, 6] == await column.answers(callers)
    await leaving


@table.row("no second thread can be started to flush", "The first thread runs the queued items.", where=in_thread)
async def flushing_without_second_thread(column):
    async def flush(column):
        column.flush()

    await without_second_thread(column, lambda column: column.loop.create_task(flush(column)))


@table.row(
    "no second thread can be started to close",
    "The first thread runs the queued items, and closing completes.",
    where=in_thread,
)
async def closing_without_second_thread(column):
    await without_second_thread(column, lambda column: column.loop.create_task(column.aclose()))
    column.closed = True


@table.row(
    "the iterable given to map raises",
    "The caller gets the error, and the items that were already queued are removed.",
    where=lambda column: not issubclass(column, Acall),
)
async def mapping_raising_iterable(column):
    def items():
        yield 1
        raise KeyError

    column.build()
    column.calls += 1
    assert [KeyError] == [type(error) for error in await column.errors([column.caller(lambda: column.map(items()))])]
    await column.until(lambda: column.stats.pending == 0)
    assert [] == column.batches


tenant = contextvars.ContextVar("tenant", default="default")


async def isolating_contexts(column, options):
    seen = []

    def read_and_set(items):
        seen.append((tenant.get(), current_batch().size))
        tenant.set("batch")
        return doubled(items)

    def as_tenant(call):
        tenant.set("caller")
        return call()

    async def answer_of(item):
        caller = contextvars.copy_context().run(
            as_tenant, lambda: column.caller(lambda: as_tenant(lambda: column.ask(item)))
        )
        column.calls += 1
        return await column.answers([caller])

    column.build(read_and_set, **options)
    assert [[2], [4], [6]] == [await answer_of(item) for item in (1, 2, 3)]
    assert [("default", 1)] * 3 == seen
    assert ("default", None) == (tenant.get(), current_batch())


for options in ({"max_size": 1}, {"timeout": 0}, {"timeout": 0.01}, {"timeout": None}):
    table.row(
        f"batch and callers set a context variable, {options}",
        "A batch does not see the variables of its callers, and no caller or later batch sees those of a batch.",
        options,
    )(isolating_contexts)


async def mixing_faults(column, seed):
    random = Random(seed)

    def answer(items):
        if any(item % 17 == 0 for item in items):
            raise ValueError(*items)
        return [KeyError(item) if item % 7 == 0 else ("answer", item) for item in items]

    window = random.choice((None, 0, 0.001, HOUR))
    column.build(answer, max_size=random.randint(1, 6), concurrency=random.randint(1, 3), timeout=window)
    callers = []
    for item in range(1, 60):
        callers += await column.call(item)
        if random.random() < 0.1:
            column.flush()
        if random.random() < 0.1:
            (column.shut if random.random() < 0.5 else column.open)()
        if random.random() < 0.2 and column.tasks:
            random.choice(callers).cancel()
    column.open()
    await column.until(lambda: column.flush() or all(caller.done() for caller in callers))
    for item, caller in enumerate(callers, 1):
        expect_own(item, await column.outcome(caller))


def expect_own(item, outcome):
    """Assert that a caller got the result or error of its own item, or cancelled."""
    if isinstance(outcome, Returned):
        assert ("answer", item) == outcome.value
        assert item % 7
    elif isinstance(outcome.error, KeyError):
        assert (item,) == outcome.error.args
    elif isinstance(outcome.error, ValueError):
        assert item in outcome.error.args
    else:
        assert isinstance(outcome, Raised)
        assert isinstance(outcome.error, asyncio.CancelledError)


for seed in range(4):
    table.row(f"a random mix of faults, {seed}", "No caller gets the result of another caller.", seed)(mixing_faults)


@pytest.mark.parametrize(("fault", "column"), table.cells())
def test_fault(fault, column, caplog):
    """Every caller gets the answer that its row promises, the batcher still works, and every call is counted."""
    check(fault, column, caplog)
