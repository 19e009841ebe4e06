"""The fault table: whatever goes wrong in whatever engine, every caller is answered and the batcher lives on.

A row is a fault, a column a way to call. Each cell is a scenario that ``columns`` plays and ends alike: every caller has
its answer, a later call works, every call is accounted for, and nothing is logged.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
from dataclasses import dataclass

import pytest
from columns import Acall, AsyncClassOfDef, Blocking, Eager, Table, check
from conftest import doubled

from batchify import BatchAbortedError, BatchResultError, ReentrantCallError

table = Table()


@pytest.fixture(autouse=True, scope="module")
def _cheap_collections():
    """Keep the garbage collector from looking through all that pytest has loaded, hundreds of times."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Fatal(BaseException):
    """No ``Exception``."""


class TwoParts(Exception):
    """One whose constructor does not take its own ``args``."""

    def __init__(self, part, other):
        super().__init__(f"{part} {other}")


class Keyword(Exception):
    """One that must be given a keyword."""

    def __init__(self, *, code):
        super().__init__("code")
        self.code = code


class Slotted(Exception):
    """One that keeps what it was given in a slot."""

    __slots__ = ("code",)

    def __init__(self, *, code):
        super().__init__("code")
        self.code = code


class NoCopy(Exception):
    """One that does not want to be copied."""

    def __copy__(self):
        raise KeyError


class ExitingCopy(Exception):
    """One that ends the process, if you let it, when it is copied."""

    def __copy__(self):
        raise SystemExit


class Single(Exception):
    """One that can't be made again in any way."""

    def __new__(cls, *, code):
        return super().__new__(cls)

    def __init__(self, *, code):
        super().__init__("code")


@dataclass(frozen=True)
class Frozen(Exception):
    """One whose attributes can't be set, not even ``__cause__``."""

    code: int


class Touchy(Exception):
    """One that fails when it is looked at."""

    def touched(self, *_):
        raise AssertionError

    __bool__ = __len__ = __eq__ = __repr__ = __str__ = touched
    __hash__ = None


class OddNotes(Exception):
    """One whose notes are none."""

    __notes__ = None

    def __init__(self, *args):
        super().__init__(*args)
        self.__notes__ = None

    def add_note(self, note):
        raise AssertionError


def causes(error):
    """Return an error and what it was raised from, and so on."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    return chain


def is_one_of(error, chain):
    return any(error is each for each in chain)


RAISED = {
    "Exception": lambda: ValueError("no", 1),
    "an exception that takes two parts": lambda: TwoParts("no", 1),
    "an exception with a required keyword": lambda: Keyword(code=7),
    "an exception with slots": lambda: Slotted(code=7),
    "an exception whose copy raises": lambda: NoCopy("no"),
    "an exception whose copy raises SystemExit": lambda: ExitingCopy("no"),
    "an exception that can't be made again": lambda: Single(code=7),
    "a frozen exception": lambda: Frozen(7),
    "an exception that can't be looked at": lambda: Touchy("no"),
    "an exception with odd notes": lambda: OddNotes("no"),
    "a BaseException": lambda: Fatal("no"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": lambda: asyncio.CancelledError("no"),
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration(1),
    "StopAsyncIteration": lambda: StopAsyncIteration(1),
    "asyncio.TimeoutError": lambda: asyncio.TimeoutError("no"),
}
if sys.version_info >= (3, 11):
    RAISED |= {
        "an ExceptionGroup": lambda: ExceptionGroup("no", [KeyError(1), ValueError(2)]),
        "a BaseExceptionGroup": lambda: BaseExceptionGroup("no", [KeyboardInterrupt()]),
    }

# Those that nobody can be given a copy of, or not for sure.
SHARED = (Single, ExitingCopy, OddNotes)


def expect_told(column, raised, errors):
    """Find that callers were told what their batch raised, as their engine tells it."""
    for error in errors:
        assert is_one_of(raised, causes(error)), "the original is the error or its cause"
        if isinstance(raised, (StopIteration, StopAsyncIteration)):
            assert RuntimeError is type(error)
        elif column.tasks and not isinstance(raised, Exception):
            told = f"the batch of double() was ended by {type(raised).__name__} before its callers had their results"
            assert (BatchAbortedError, told) == (type(error), str(error))
            assert type(raised) is type(error.__cause__)
        else:
            expect_same(raised, error)
    if not isinstance(raised, SHARED):
        assert len(errors) == len({id(error) for error in errors})


def expect_same(raised, error):
    """Find that one exception says the same as the other."""
    assert type(raised) is type(error)
    assert all(mine is other for mine, other in zip(raised.args, error.args, strict=True))
    if hasattr(raised, "code"):
        assert raised.code == error.code


def failing_on_bad(raised):
    """Return an answer that raises if one of the items is bad."""

    def fail_on_bad(items):
        if "bad" in items:
            raise raised
        return doubled(items)

    return fail_on_bad


def expect_escaped(column, raised, times=1):
    """Find that what ends a loop has ended it, as asyncio does, and only if it was raised on one."""
    ends = column.on_loop and isinstance(raised, (KeyboardInterrupt, SystemExit))
    assert [raised] * (times if ends else 0) == column.escaped
    column.escaped.clear()


async def raising(column, make):
    """Both callers of the batch are told, and those of the next one are answered."""
    raised = make()
    column.build(failing_on_bad(raised))
    column.shut()
    bad = await column.call("bad", "bad")
    await column.at_gate()
    neighbours = await column.call(1, 2)
    column.open()
    expect_told(column, raised, await column.errors(bad))
    assert [2, 4] == await column.answers(neighbours)
    assert (2, 2) == (column.stats.failed_items, column.stats.answered_items)
    expect_escaped(column, raised)


async def raising_at_once(column, make):
    """Both callers are told by a batch that fails before it has waited for anything."""
    raised = make()
    column.build(failing_on_bad(raised))
    expect_told(column, raised, await column.errors(await column.call("bad", "bad")))
    assert 2 == column.stats.failed_items
    expect_escaped(column, raised)


for kind, make in RAISED.items():
    table.row(f"batch raises {kind}", make)(raising)
    table.row(f"batch raises {kind} at once", make)(raising_at_once)


class NoLength:
    """An array without dimensions."""

    def __len__(self):
        message = "len() of unsized object"
        raise TypeError(message)

    def __iter__(self):
        message = "iteration over a 0-d array"
        raise TypeError(message)


class LongerThanItSays(list):
    """A list that does not know its length."""

    def __len__(self):
        return 2


WRONG = {
    "too few results": (lambda items: [1], "1 result"),
    "no results": (lambda items: [], "0 results"),
    "too many results": (lambda items: [1, 2, 3], "3 results"),
    "more results than it says": (lambda items: LongerThanItSays([1, 2, 3]), "3 results"),
    "None": (lambda items: None, "None"),
    "a dict": (lambda items: {1: 1, 2: 2}, "a dict"),
    "a set": (lambda items: {1, 2}, "a set"),
    "a frozenset": (lambda items: frozenset((1, 2)), "a frozenset"),
    "a string": (lambda items: "ab", "a str"),
    "bytes": (lambda items: b"ab", "a bytes"),
    "a bytearray": (lambda items: bytearray(b"ab"), "a bytearray"),
    "a generator": (lambda items: (item for item in items), "a generator, which has no length"),
    "an iterator": (lambda items: iter(items), "a list_iterator, which has no length"),
    "a number": (lambda items: 2, "a int, which has no length"),
    "an array without dimensions": (lambda items: NoLength(), "a NoLength, which has no length"),
    "a class": (lambda items: list, "a type, which has no length"),
}


async def returning_wrong(column, answer, told):
    """Both callers of the batch are told what it returned and what it must return; those of the next are answered."""
    column.build(answer)
    column.shut()
    bad = await column.call(1, 2)
    await column.at_gate()
    neighbours = await column.call(3)
    column.open()
    message = f"double() was given 2 items and returned {told}; it must return one for each item, in order"
    assert [(BatchResultError, message)] * 2 == [(type(error), str(error)) for error in await column.errors(bad)]
    column.answer = doubled
    column.flush()
    assert [6] == await column.answers(neighbours)


for kind, (answer, told) in WRONG.items():
    table.row(f"batch returns {kind}", answer, told)(returning_wrong)


@table.row("batch returns something whose length raises", ValueError("no length"))
@table.row(
    "batch returns something whose length raises SystemExit",
    SystemExit(4),
    # There the length is asked for on the loop, and what it raises ends the loop.
    where=lambda column: not issubclass(column, AsyncClassOfDef),
)
async def returning_raising(column, raised):
    """What the returned object raises is told as if the batch function had raised it."""

    class Raising:
        def __len__(self):
            raise raised

    column.build(lambda items: Raising())
    expect_told(column, raised, await column.errors(await column.call(1, 2)))
    expect_escaped(column, raised)


async def answering(column, results, expect):
    """Each caller gets the result in its place, as it is, or is told the exception in its place."""
    column.build(lambda items: results)
    expect(results, [await column.outcome(caller) for caller in await column.call(1, 2)])


def expect_first_raised(results, outcomes):
    assert results[0] is outcomes[0].error
    assert results[1] is outcomes[1].value


def expect_first_wrapped(results, outcomes):
    assert (RuntimeError, results[0]) == (type(outcomes[0].error), outcomes[0].error.__cause__)
    assert results[1] is outcomes[1].value


def expect_both_raised(results, outcomes):
    for result, outcome in zip(results, outcomes, strict=True):
        expect_same(result, outcome.error)


def expect_both_returned(results, outcomes):
    assert all(result is outcome.value for result, outcome in zip(results, outcomes, strict=True))


class Untouchable:
    """What fails when it is compared, measured, shown, hashed or asked what it is."""

    def touched(self, *_):
        raise AssertionError

    __bool__ = __len__ = __eq__ = __ne__ = __lt__ = __repr__ = __str__ = __iter__ = __await__ = __contains__ = touched
    __getattr__ = __index__ = __format__ = __reduce_ex__ = __copy__ = touched
    __hash__ = None


class Nameless:
    """What does not tell its class, as a proxy of nothing does."""

    @property
    def __class__(self):
        message = "not bound to anything"
        raise RuntimeError(message)


class Pretender:
    """What says that it is an exception, and is none: it can't be raised."""

    @property
    def __class__(self):
        return ValueError


one_error = KeyError("one")
RESULTS = {
    "an exception": ([KeyError("no"), 4], expect_first_raised),
    "a StopIteration": ([StopIteration(1), 4], expect_first_wrapped),
    "a StopAsyncIteration": ([StopAsyncIteration(1), 4], expect_first_wrapped),
    "a frozen exception": ([Frozen(7), 4], expect_first_raised),
    "an exception that can't be looked at": ([Touchy("no"), 4], expect_first_raised),
    "the same exception twice": ([one_error, one_error], expect_both_raised),
    "a KeyboardInterrupt": ([KeyboardInterrupt(), 4], expect_both_returned),
    "a CancelledError": ([asyncio.CancelledError(), 4], expect_both_returned),
    "an exception class": ([ValueError, StopIteration], expect_both_returned),
    "what can't be touched": ([Untouchable(), Untouchable()], expect_both_returned),
    "what does not tell its class": ([Nameless(), 4], expect_both_returned),
    "what pretends to be an exception": ([Pretender(), 4], expect_both_returned),
}
for kind, (results, expect) in RESULTS.items():
    table.row(f"a result is {kind}", results, expect)(answering)


@table.row("batch clears its list", list.clear)
@table.row("batch extends its list", lambda items: items.extend([3, 4, 5]))
@table.row("batch reverses its list", list.reverse)
async def mutating(column, mutate):
    """What the batch function does to its list changes nobody's answer."""

    def double_and_mutate(items):
        results = doubled(items)
        mutate(items)
        return results

    column.build(double_and_mutate)
    assert [2, 4] == await column.answers(await column.call(1, 2))


@table.row("items can't be touched")
async def untouchable_items(column):
    """Items are neither compared, hashed, shown nor tested for truth."""
    column.build(lambda items: [1, 2])
    assert [1, 2] == await column.answers(await column.call(Untouchable(), Nameless()))


class Unraisable:
    """Notes what finalizers raise."""

    def __init__(self):
        self.seen = []

    def __enter__(self):
        self.before, sys.unraisablehook = sys.unraisablehook, lambda told: self.seen.append(told.exc_type)
        return self.seen

    def __exit__(self, *_):
        sys.unraisablehook = self.before


class Grave:
    """What fails when it dies."""

    def __del__(self):
        raise ZeroDivisionError


@table.row("items have finalizers that raise", lambda items: [1, 2], Grave)
@table.row("results have finalizers that raise", lambda items: [Grave(), Grave()], int)
async def dying(column, answer, item):
    """What the finalizer of an item or result raises reaches nobody."""
    with Unraisable() as seen:
        column.build(answer)
        await column.answers(await column.call(item(), item()))
        column.forget()
        await column.until(lambda: gc.collect() >= 0 and len(seen) == 2)
    assert [ZeroDivisionError] * 2 == seen


@table.row("items have finalizers that use the batcher")
async def dying_words(column):
    """A finalizer may flush the batcher, look at what waits and count: nothing that it would wait for is held."""
    seen = []

    class Caller:
        def __del__(self):
            column.flush()
            seen.append(column.stats.failed_items)

    def fail(items):
        raise KeyError

    column.build(fail)
    await column.errors(await column.call(Caller(), Caller()))
    column.forget()
    await column.until(lambda: gc.collect() >= 0 and len(seen) == 2)


async def cancelled(column, *callers):
    """Find that callers were cancelled."""
    assert [asyncio.CancelledError] * len(callers) == [type(error) for error in await column.errors(callers)]


def tasks(column):
    return column.tasks


@table.row("caller cancelled before it starts", where=lambda column: column.tasks and not issubclass(column, Eager))
async def cancelled_before_start(column):
    """Nothing is queued."""
    column.build()
    caller = column.attempt(1)
    caller.cancel()
    await cancelled(column, caller)
    assert 0 == column.accounted()


@table.row("caller cancelled while it waits", where=tasks)
async def cancelled_while_waiting(column):
    """Its item is never run, and its place is free."""
    column.build()
    (gone,) = await column.call(1)
    gone.cancel()
    await cancelled(column, gone)
    assert (0, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row("caller cancelled just before its batch leaves", where=tasks)
async def cancelled_before_departure(column):
    """It is not run, although it was not told yet when its batch left."""
    column.build(max_size=3)
    gone, stays = await column.call(1, 2)
    gone.cancel()
    column.flush()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)
    assert [[2]] == column.batches


@table.row("all callers cancelled just before their batch leaves", where=tasks)
async def all_cancelled_before_departure(column):
    """The batch function is not called."""
    column.build(max_size=3)
    callers = await column.call(1, 2)
    for caller in callers:
        caller.cancel()
    column.flush()
    await cancelled(column, *callers)
    assert [] == column.batches


@table.row("caller cancelled just after its batch left", where=tasks)
async def cancelled_after_departure(column):
    """Its neighbour is answered."""
    column.build(max_size=3)
    gone, stays = await column.call(1, 2)
    column.flush()
    gone.cancel()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)


@table.row("all callers cancelled just after their batch left", where=tasks)
async def all_cancelled_after_departure(column):
    """They are told, and nothing is left running."""
    column.build(max_size=3)
    callers = await column.call(1, 2)
    column.flush()
    for caller in callers:
        caller.cancel()
    await cancelled(column, *callers)
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items + column.stats.answered_items


@table.row("caller cancelled while its batch runs", where=tasks)
async def cancelled_while_running(column):
    """Its result is dropped, and its neighbour gets its own."""
    column.build()
    column.shut()
    gone, stays = await column.call(1, 2)
    await column.at_gate()
    gone.cancel()
    await cancelled(column, gone)
    column.open()
    assert [4] == await column.answers([stays])
    assert (1, 1) == (column.stats.cancelled_items, column.stats.answered_items)


@table.row("caller cancelled while its batch fails", where=tasks)
async def cancelled_while_failing(column):
    """Its error is dropped, and its neighbour is told its own."""
    column.build(failing_on_bad(KeyError("bad")))
    column.shut()
    gone, stays = await column.call("bad", "bad")
    await column.at_gate()
    gone.cancel()
    column.open()
    assert [KeyError] == [type(error) for error in await column.errors([stays])]
    await cancelled(column, gone)
    assert (1, 1) == (column.stats.cancelled_items, column.stats.failed_items)


@table.row("all callers cancelled while their batch runs", where=tasks)
async def all_cancelled_while_running(column):
    """A batch on a loop is cancelled, and frees its slot; one in a thread ends when it is done. The next is answered."""
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


@table.row("caller cancelled at the moment of its answer", where=tasks)
async def cancelled_when_answered(column):
    """It is cancelled, and its neighbour has its answer."""

    def cancel_and_double(items):
        column.loop.call_soon_threadsafe(gone.cancel)
        return doubled(items)

    column.build(cancel_and_double)
    column.shut()
    gone, stays = await column.call(1, 2)
    column.open()
    assert [4] == await column.answers([stays])
    await cancelled(column, gone)


@table.row("caller times out while it waits", where=tasks)
async def timing_out_waiting(column):
    """It is told, and its item is never run."""
    column.build()
    column.calls += 1
    caller = column.caller(lambda: asyncio.wait_for(column.ask(1), 0.01))
    assert [asyncio.TimeoutError] == [type(error) for error in await column.errors([caller])]
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row("caller times out while its batch runs", where=tasks)
async def timing_out_running(column):
    """It is told, and its neighbour gets its result."""
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


@table.row("coroutine closed while it waits", where=tasks)
async def closed_while_waiting(column):
    """Its item is taken out."""
    column.build()
    coroutine = column.ask(1)
    coroutine.send(None)
    coroutine.close()
    column.calls += 1
    assert (0, 1) == (column.stats.pending, column.stats.cancelled_items)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row("coroutine closed while its batch runs", where=tasks)
async def closed_while_running(column):
    """Its neighbour is answered."""
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


@table.row("coroutine never awaited", where=tasks)
async def never_awaited(column):
    """Python warns, and nothing is queued."""
    column.build()
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        column.ask(1)
        gc.collect()
    assert 0 == column.accounted()


def futures(column):
    # A future from ``submit`` of what is called through ``acall`` is one of the thread function.
    return not issubclass(column, Acall)


@table.row("future cancelled while it waits", where=futures)
async def future_cancelled_while_waiting(column):
    """Its item is never run, and its place is free."""
    column.build()
    gone = column.submit(1)
    assert gone.cancel()
    await column.until(lambda: column.stats.cancelled_items == 1)
    assert [4, 6] == await column.answers(await column.call(2, 3))
    assert [[2, 3]] == column.batches


@table.row("future cancelled just before its batch leaves", where=futures)
async def future_cancelled_before_departure(column):
    """It is not run."""
    column.build(max_size=3)
    gone, stays = column.submit(1), column.submit(2)
    gone.cancel()
    column.flush()
    assert 4 == await column.awaited(stays)
    assert [[2]] == column.batches


@table.row("future cancelled while its batch runs", where=futures)
async def future_cancelled_while_running(column):
    """A loop's future is cancelled and its result dropped, a thread's can't be any more. Its neighbour is answered."""
    column.build()
    column.shut()
    gone, stays = column.submit(1), column.submit(2)
    await column.at_gate()
    assert column.tasks == gone.cancel()
    column.open()
    assert 4 == await column.awaited(stays)
    assert column.tasks == gone.cancelled()
    assert column.tasks == column.stats.cancelled_items


@table.row("all futures cancelled while their batch runs", where=lambda column: column.tasks and futures(column))
async def all_futures_cancelled_while_running(column):
    """The batch is cancelled, and frees its slot."""
    column.build()
    column.shut()
    gone = [column.submit(1), column.submit(2)]
    await column.at_gate()
    for future in gone:
        future.cancel()
    await column.until(lambda: column.stats.running == 0)
    assert 2 == column.stats.cancelled_items


@table.row("future cancelled after its answer", where=futures)
async def future_cancelled_after_answer(column):
    """It keeps its answer."""
    column.build()
    answered = [column.submit(1), column.submit(2)]
    for future in answered:
        await column.awaited(future)
    assert [False, False] == [future.cancel() for future in answered]
    assert [2, 4] == [future.result() for future in answered]


@table.row("future answered by its owner", where=futures)
async def future_answered_by_owner(column):
    """It keeps what its owner has given it, and its neighbour is answered."""
    column.build()
    column.shut()
    mine, other = column.submit(1), column.submit(2)
    await column.at_gate()
    mine.set_result("mine")
    column.open()
    assert ("mine", 4) == (mine.result(), await column.awaited(other))


@table.row("result(timeout) runs out", where=lambda column: issubclass(column, Blocking))
async def result_times_out(column):
    """The item stays where it is, and is answered in time."""
    column.build()
    future = column.submit(1)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0)
    column.flush()
    assert 2 == await column.awaited(future)


@table.row("callback of a future raises", where=futures)
async def callback_raises(column):
    """It is logged by who called it, and the neighbours are answered."""
    column.build()
    first = column.submit(1)
    first.add_done_callback(lambda _: 1 / 0)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    column.log = ["Exception in callback" if column.tasks else "exception calling callback"]


@table.row("callback of a future raises SystemExit", where=futures)
async def callback_exits(column):
    """It ends a loop, as asyncio has it, and is logged in a thread; the neighbours are answered."""

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


@table.row("callback of a future waits for another call", where=lambda column: issubclass(column, Blocking))
async def callback_calls(column):
    """It is refused, as it would wait for the thread that it runs on; the neighbours are answered."""
    told = []

    def call_again(_):
        try:
            column.ask(3)
        except ReentrantCallError as error:
            told.append(error)

    column.build()
    first = column.submit(1)
    first.add_done_callback(call_again)
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    assert 1 == len(told)


@table.row("callback of a future closes the batcher", where=lambda column: issubclass(column, Blocking))
async def callback_closes(column):
    """What waits is run, and the callback does not wait for the thread that it runs on."""
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


@table.row("callback of a future submits", where=futures)
async def callback_submits(column):
    """What a callback submits is answered like anything else."""
    later = []
    column.build()
    first = column.submit(1)
    first.add_done_callback(lambda _: later.append(column.submit(3)))
    second = column.submit(2)
    assert (2, 4) == (await column.awaited(first), await column.awaited(second))
    await column.until(lambda: later)
    column.flush()
    assert 6 == await column.awaited(later[0])


@pytest.mark.parametrize(("scenario", "column"), table.cells())
def test_fault(scenario, column, caplog):
    """Every caller is answered as its row says, the batcher works afterwards, and every call is accounted for."""
    check(scenario, column, caplog)
