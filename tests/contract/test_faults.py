"""The fault table: after any fault in any engine, every caller has an answer and the batcher still works.

Each row is a fault, and each column is a way to call. ``columns`` runs a scenario for each cell and then asserts that
every caller has an answer, a later call works, the statistics count every call, and nothing unexpected is logged.

This module has the faults of batches: the errors they raise, the results they return, and items and results that
misbehave. ``test_leaving`` has the faults of callers, and ``test_inside_batches`` those of batch functions that use
their own batcher or task.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import dataclass

import pytest

from batchify import BatchAbortedError, BatchResultError
from tests.kit.columns import AsyncClassOfDef, Table, check
from tests.kit.engines import doubled
from tests.kit.misbehaving import Untouchable

table = Table()


class Fatal(BaseException):
    """Is a ``BaseException`` but not an ``Exception``."""


class TwoPartsError(Exception):
    """Has a constructor that does not accept its own ``args``."""

    def __init__(self, part, other):
        super().__init__(f"{part} {other}")


class KeywordError(Exception):
    """Has a constructor with a required keyword argument."""

    def __init__(self, *, code):
        super().__init__("code")
        self.code = code


class WordingError(Exception):
    """Has a constructor that builds the message."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class NoCopyError(Exception):
    """Raises an exception when it is copied."""

    def __copy__(self):
        raise KeyError


class ExitingCopyError(Exception):
    """Raises ``SystemExit`` when it is copied."""

    def __copy__(self):
        raise SystemExit


class UncopyableError(Exception):
    """Can neither be copied nor be created again from its ``args``."""

    def __new__(cls, *, code):
        return super().__new__(cls)

    def __init__(self, *, code):
        super().__init__("code")


@dataclass(frozen=True)
class FrozenError(Exception):
    """Has no attribute that can be set, not even ``__cause__``."""

    code: int


class TouchyError(Exception):
    """Raises when code compares, measures or prints it."""

    def fail(self, *_):
        raise AssertionError

    __bool__ = __len__ = __eq__ = __repr__ = __str__ = fail
    __hash__ = None


class NoNotesError(Exception):
    """Has ``None`` instead of a list of notes, and raises when a note is added."""

    __notes__ = None

    def __init__(self, *args):
        super().__init__(*args)
        self.__notes__ = None

    def add_note(self, note):
        raise AssertionError


def causes(error):
    """Return an error and the chain of its causes."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    return chain


def is_one_of(error, chain):
    return any(error is each for each in chain)


RAISED = {
    "Exception": lambda: ValueError("no", 1),
    "an exception with two required arguments": lambda: TwoPartsError("no", 1),
    "an exception with a required keyword": lambda: KeywordError(code=7),
    "an exception that builds its message": lambda: WordingError(7),
    "an exception whose copy raises": lambda: NoCopyError("no"),
    "an exception whose copy raises SystemExit": lambda: ExitingCopyError("no"),
    "an exception that cannot be copied": lambda: UncopyableError(code=7),
    "a frozen exception": lambda: FrozenError(7),
    "an exception whose attributes raise": lambda: TouchyError("no"),
    "an exception without a list of notes": lambda: NoNotesError("no"),
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
        "an ExceptionGroup": lambda: ExceptionGroup("no", [KeyError(1), ValueError(2)]),  # noqa: F821  # a builtin since 3.11
        "a BaseExceptionGroup": lambda: BaseExceptionGroup("no", [KeyboardInterrupt()]),  # noqa: F821  # a builtin since 3.11
    }

# Exceptions that callers may have to share, since copying them can fail.
SHARED = (UncopyableError, ExitingCopyError, NoNotesError)


def expect_raised(column, raised, errors):
    """Assert that callers got the error of their batch, as their engine delivers it."""
    for error in errors:
        assert is_one_of(raised, causes(error)), "the error is not the original and does not have it as a cause"
        if isinstance(raised, (StopIteration, StopAsyncIteration)):
            assert RuntimeError is type(error)
        elif column.tasks and not isinstance(raised, Exception):
            message = f"the batch of double() was ended by {type(raised).__name__} before its callers had their results"
            assert (BatchAbortedError, message) == (type(error), str(error))
            assert type(raised) is type(error.__cause__)
        else:
            expect_same(raised, error)
    if not isinstance(raised, SHARED):
        assert len(errors) == len({id(error) for error in errors})


def expect_same(raised, error):
    """Assert that two exceptions have the same type and arguments."""
    assert type(raised) is type(error)
    assert all(mine is other for mine, other in zip(raised.args, error.args, strict=True))
    if hasattr(raised, "code"):
        assert raised.code == error.code


def failing_on_bad(raised):
    """Return an ``answer`` function that raises if one of the items is ``"bad"``."""

    def fail_on_bad(items):
        if "bad" in items:
            raise raised
        return doubled(items)

    return fail_on_bad


async def expect_escaped(column, raised, times=1):
    """Assert that the loop stopped if, and only if, a batch on the loop raised an error that stops loops in asyncio."""
    stops = column.on_loop and isinstance(raised, (KeyboardInterrupt, SystemExit))
    expected = [raised] * (times if stops else 0)
    # Callers may get the error before the loop stops, since uvloop runs one more iteration.
    await column.until(lambda: len(column.escaped) >= len(expected))
    assert expected == column.escaped
    column.escaped.clear()


async def raising(column, make):
    raised = make()
    column.build(failing_on_bad(raised))
    column.shut()
    bad = await column.call("bad", "bad")
    await column.at_gate()
    others = await column.call(1, 2)
    column.open()
    expect_raised(column, raised, await column.errors(bad))
    assert [2, 4] == await column.answers(others)
    assert (2, 2) == (column.stats.failed_items, column.stats.answered_items)
    await expect_escaped(column, raised)


async def raising_at_once(column, make):
    raised = make()
    column.build(failing_on_bad(raised))
    expect_raised(column, raised, await column.errors(await column.call("bad", "bad")))
    assert 2 == column.stats.failed_items
    await expect_escaped(column, raised)


RAISES = "Both callers of the batch get the error, and the callers of the next batch get their results."
RAISES_AT_ONCE = "Both callers get the error, even if the batch fails before its first await."
for kind, make in RAISED.items():
    table.row(f"batch raises {kind}", RAISES, make)(raising)
    table.row(f"batch raises {kind} at once", RAISES_AT_ONCE, make)(raising_at_once)


class NoLength:
    """Acts like an array without dimensions."""

    def __len__(self):
        message = "len() of unsized object"
        raise TypeError(message)

    def __iter__(self):
        message = "iteration over a 0-d array"
        raise TypeError(message)


class WrongLength(list):
    """Reports a length that is not its number of elements."""

    def __len__(self):
        return 2


WRONG = {
    "too few results": (lambda items: [1], "1 result"),
    "no results": (lambda items: [], "0 results"),
    "too many results": (lambda items: [1, 2, 3], "3 results"),
    "more results than its reported length": (lambda items: WrongLength([1, 2, 3]), "3 results"),
    "None": (lambda items: None, "None"),
    "a dict": (lambda items: {1: 1, 2: 2}, "a dict"),
    "a set": (lambda items: {1, 2}, "a set"),
    "a frozenset": (lambda items: frozenset((1, 2)), "a frozenset"),
    "a string": (lambda items: "ab", "a str"),
    "bytes": (lambda items: b"ab", "a bytes"),
    "a bytearray": (lambda items: bytearray(b"ab"), "a bytearray"),
    "a generator": (lambda items: (item for item in items), "a generator, which has no length"),
    "an iterator": (iter, "a list_iterator, which has no length"),
    "a number": (lambda items: 2, "an int, which has no length"),
    "an array without dimensions": (lambda items: NoLength(), "a NoLength, which has no length"),
    "a class": (lambda items: list, "a type, which has no length"),
}


async def returning_wrong(column, answer, shown):
    column.build(lambda items: doubled(items) if items == [3] else answer(items))
    column.shut()
    bad = await column.call(1, 2)
    await column.at_gate()
    others = await column.call(3)
    column.open()
    message = f"double() was given 2 items and returned {shown}; it must return one for each item, in order"
    assert [(BatchResultError, message)] * 2 == [(type(error), str(error)) for error in await column.errors(bad)]
    column.flush()
    assert [6] == await column.answers(others)


NAMES_RULE = "Both callers get an error that names the type and the rule; those of the next batch get their results."
for kind, (answer, shown) in WRONG.items():
    table.row(f"batch returns {kind}", NAMES_RULE, answer, shown)(returning_wrong)


@table.row(
    "batch returns an object whose length raises",
    "Callers get the error of the returned object as if the batch function had raised it.",
    ValueError("no length"),
)
@table.row(
    "batch returns an object whose length raises SystemExit",
    "Callers get the error of the returned object as if the batch function had raised it.",
    SystemExit(4),
    # In that column, code on the loop reads the length, so that the error stops the loop.
    where=lambda column: not issubclass(column, AsyncClassOfDef),
)
async def returning_raising(column, raised):
    class Raising:
        def __len__(self):
            raise raised

    column.build(lambda items: Raising())
    expect_raised(column, raised, await column.errors(await column.call(1, 2)))
    await expect_escaped(column, raised)


async def answering(column, results, expect):
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


class Nameless:
    """Raises when code reads its class, like an unbound proxy."""

    @property
    def __class__(self):
        message = "not bound to anything"
        raise RuntimeError(message)


class Pretender:
    """Claims to be an exception, but cannot be raised."""

    @property
    def __class__(self):
        return ValueError


one_error = KeyError("one")
RESULTS = {
    "an exception": ([KeyError("no"), 4], expect_first_raised),
    "a StopIteration": ([StopIteration(1), 4], expect_first_wrapped),
    "a StopAsyncIteration": ([StopAsyncIteration(1), 4], expect_first_wrapped),
    "a frozen exception": ([FrozenError(7), 4], expect_first_raised),
    "an exception whose attributes raise": ([TouchyError("no"), 4], expect_first_raised),
    "the same exception twice": ([one_error, one_error], expect_both_raised),
    "a KeyboardInterrupt": ([KeyboardInterrupt(), 4], expect_both_returned),
    "a CancelledError": ([asyncio.CancelledError(), 4], expect_both_returned),
    "an exception class": ([ValueError, StopIteration], expect_both_returned),
    "an untouchable object": ([Untouchable(), Untouchable()], expect_both_returned),
    "an object whose class cannot be read": ([Nameless(), 4], expect_both_returned),
    "an object that pretends to be an exception": ([Pretender(), 4], expect_both_returned),
}
ANSWERS = "Each caller gets the object at its position unchanged; an exception is raised in its caller."
for kind, (results, expect) in RESULTS.items():
    table.row(f"a result is {kind}", ANSWERS, results, expect)(answering)


@table.row(
    "batch clears its list",
    "The batch function may change its list of items without an effect on the results.",
    list.clear,
)
@table.row(
    "batch extends its list",
    "The batch function may change its list of items without an effect on the results.",
    lambda items: items.extend([3, 4, 5]),
)
@table.row(
    "batch reverses its list",
    "The batch function may change its list of items without an effect on the results.",
    list.reverse,
)
async def mutating(column, mutate):
    def double_and_mutate(items):
        results = doubled(items)
        mutate(items)
        return results

    column.build(double_and_mutate)
    assert [2, 4] == await column.answers(await column.call(1, 2))


@table.row(
    "items are untouchable",
    "Items are not compared, hashed, printed or tested for truth.",
)
async def untouchable_items(column):
    column.build(lambda items: [1, 2])
    assert [1, 2] == await column.answers(await column.call(Untouchable(), Nameless()))


class Unraisable:
    """Collects the types of exceptions that finalizers raise."""

    def __init__(self):
        self.seen = []

    def __enter__(self):
        self.before, sys.unraisablehook = sys.unraisablehook, lambda raised: self.seen.append(raised.exc_type)
        return self.seen

    def __exit__(self, *_):
        sys.unraisablehook = self.before


class FinalizerRaises:
    """Has a finalizer that raises."""

    def __del__(self):
        raise ZeroDivisionError


@table.row(
    "items have finalizers that raise",
    "Callers do not get the error of the finalizer of an item or a result.",
    lambda items: [1, 2],
    FinalizerRaises,
)
@table.row(
    "results have finalizers that raise",
    "Callers do not get the error of the finalizer of an item or a result.",
    lambda items: [FinalizerRaises(), FinalizerRaises()],
    int,
)
async def raising_in_finalizers(column, answer, item):
    with Unraisable() as seen:
        column.build(answer)
        await column.answers(await column.call(item(), item()))
        column.forget()
        await column.until(lambda: gc.collect() >= 0 and len(seen) == 2)
    assert [ZeroDivisionError] * 2 == seen


@table.row(
    "items have finalizers that use the batcher",
    "A finalizer may flush the batcher and read its statistics, since the engine holds no lock that they need.",
)
async def finalizing(column):
    seen = []

    class Item:
        def __del__(self):
            column.flush()
            seen.append(column.stats.failed_items)

    def fail(items):
        raise KeyError

    column.build(fail)
    await column.errors(await column.call(Item(), Item()))
    column.forget()
    await column.until(lambda: gc.collect() >= 0 and len(seen) == 2)


@pytest.mark.parametrize(("fault", "column"), table.cells())
def test_fault(fault, column, caplog):
    """Every caller gets the answer that its row promises, the batcher still works, and every call is counted."""
    check(fault, column, caplog)
