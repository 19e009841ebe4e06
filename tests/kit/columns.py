"""The columns of the fault table: every way to call a batch function, driven alike from a scenario on an event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import threading
import time
import traceback
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from batchify import AsyncMicrobatcher, SyncMicrobatcher, microbatch
from batchify._batcher import registry
from batchify.testing import VirtualLoop
from tests.kit.engines import HOUR, PATIENCE, accounted, doubled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

try:
    import uvloop
except ImportError:
    uvloop = None


class HungError(AssertionError):
    """A caller waits, and no code is going to answer it."""


def in_time(do, where=lambda: ""):
    """Return ``do()``, run in a thread of its own so that a hang is a failure."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), name="in time", daemon=True).start()
    if not wait([outcome], PATIENCE).done:
        forget_batchers()
        # Otherwise the interpreter joins the hanging thread at its end, and hangs with it.
        threading._register_atexit(leave_at_once)
        message = f"hang: {where()}"
        raise HungError(message)
    return outcome.result()


def leave_at_once():
    """End the process without waiting for threads."""
    sys.stdout.flush()
    os._exit(1)


def settle(outcome, do):
    """Run ``do()`` and set its result or error on ``outcome``."""
    try:
        outcome.set_result(do())
    except BaseException as error:
        outcome.set_exception(error)


def forget_batchers():
    """Make no other code wait for the batchers and threads of a failed test."""
    registry._live.clear()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.name = "left behind"


class Returned:
    """The result of a call."""

    def __init__(self, value):
        self.value = value


class Raised:
    """The error of a call."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        return f"<raised {type(self.error).__name__}>"


class HastyLoop(VirtualLoop):
    """Moves its clock while its threads run, since a thread may wait at a gate that opens after a timeout."""

    run_in_executor = asyncio.SelectorEventLoop.run_in_executor


class Column:
    """A batcher, its callers and its batch function, which can be stopped at a gate.

    A scenario is a coroutine function of a column. ``play()`` runs it and then asserts that every caller is answered,
    that the batcher works, and that every call is counted.
    """

    name: str
    # Whether callers are tasks of the loop, which can be cancelled, or threads, which cannot.
    tasks = True
    # Whether the batch function runs on the loop.
    on_loop = True
    # Whether it can be started again after it was closed.
    restarts = False
    new_loop = HastyLoop
    # The reason why this Python does not have the column.
    missing = ""

    def __init__(self):
        self.loop = self.new_loop()
        self.answer = doubled
        # The items of each batch.
        self.batches = []
        # The number of calls that the batcher accepted, and their callers.
        self.calls = 0
        self.callers = []
        # The errors that ended the loop, as KeyboardInterrupt and SystemExit do.
        self.escaped = []
        # The expected log messages, and whether the scenario closes the batcher.
        self.log = []
        self.closed = False
        self._open = threading.Event()
        self._open.set()
        self._open_on_loop = asyncio.Event()
        self._main = None

    def build(self, answer=doubled, **options):
        """Make the batcher; by default its batches leave when they have two items or are flushed."""
        self.answer = answer
        self.build_of(self.batch_function(), **{"max_size": 2, "timeout": HOUR, "name": "double", **options})

    def batch_function(self):
        """Return a batch function of the kind that this column accepts."""

        def double(items):
            self.batches.append(list(items))
            assert self._open.wait(PATIENCE), "the gate stayed shut"
            return self.answer(items)

        async def double_on_loop(items):
            self.batches.append(list(items))
            if not self._open.is_set():
                await self._open_on_loop.wait()
            answer = self.answer(items)
            return await answer if inspect.iscoroutine(answer) else answer

        return double_on_loop if self.on_loop else double

    def play(self, scenario):
        """Run a scenario and the assertions at its end."""
        try:
            in_time(lambda: self._run(scenario), self._where)
        except BaseException:
            forget_batchers()
            raise
        assert [] == self.escaped, "an error ended the loop"

    def _run(self, scenario):
        async def cell():
            await scenario(self)
            await self.all_is_well()

        self._main = self.loop.create_task(cell())
        try:
            while not self._main.done():
                self._go_on()
            self._main.result()
        finally:
            self.open()
            self._end()

    def _go_on(self):
        try:
            self.loop.run_until_complete(self._main)
        except (KeyboardInterrupt, SystemExit) as error:
            if not self._main.done() or self._main.exception() is not error:
                self.escaped.append(error)

    def _end(self):
        async def leave():
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.loop.run_until_complete(leave())
        self.loop.close()

    def _where(self):
        """Return the stack of the waiting scenario."""
        waiting = self._main.get_coro()
        frames = []
        while inspect.iscoroutine(waiting) and waiting.cr_frame is not None:
            frames.append(waiting.cr_frame)
            waiting = waiting.cr_await
        return "\n" + "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())

    async def all_is_well(self):
        """Assert that every caller is answered, that an open batcher works, and that every call is counted."""
        for caller in self.callers:
            await self.outcome(caller)
        if self.closed and self.restarts:
            await self.start()
        if not self.closed or self.restarts:
            self.answer = doubled
            self.open()
            later = await self.call(21)
            self.flush()
            assert [42] == await self.answers(later)
        self.balanced()
        assert (0, 0) == (self.stats.pending, self.stats.running)
        await self.aclose()
        # The names of the batcher's threads begin with its own.
        await self.until(lambda: not any(thread.name.startswith("double") for thread in threading.enumerate()))

    def accounted(self):
        """Return the number of counted calls."""
        return accounted(self.stats)

    def balanced(self):
        """Assert that every call is counted."""
        assert self.calls == self.accounted()

    async def until(self, condition):
        """Wait until another thread or task makes ``condition()`` true; otherwise the scenario hangs."""
        while not condition():  # there is no event to wait for
            # A spinning loop keeps the interpreter to itself; this gives threads a turn.
            time.sleep(0)  # noqa: ASYNC251  # likewise
            await asyncio.sleep(0)

    async def call(self, *items):
        """Call with one item after the other, each queued before the next; return the callers."""
        callers = []
        for item in items:
            callers.append(self.attempt(item))
            self.calls += 1
            await self.until(lambda: self.accounted() == self.calls)
        return callers

    def attempt(self, item):
        """Call with an item, without counting the call or waiting until it is queued; return the caller."""
        self.callers.append(self.caller(lambda: self.ask(item)))
        return self.callers[-1]

    def submit(self, item):
        """Queue an item and return the future of its result."""
        self.calls += 1
        return self.put(item)

    def caller(self, call):
        """Return a task that awaits ``call()``, or the future of a thread that runs it."""

        async def awaiting():
            try:
                return Returned(await call())
            except BaseException as error:
                return Raised(error)

        return self.loop.create_task(awaiting())

    async def outcome(self, caller):
        """Return the result or error of a call."""
        try:
            outcome = await caller
        except asyncio.CancelledError as error:
            return Raised(error)
        return outcome

    async def answers(self, callers):
        """Return the results of callers, all of which have one."""
        outcomes = [await self.outcome(caller) for caller in callers]
        assert [Returned] * len(callers) == [type(outcome) for outcome in outcomes], outcomes
        return [outcome.value for outcome in outcomes]

    async def errors(self, callers):
        """Return the errors of callers, all of which have one."""
        outcomes = [await self.outcome(caller) for caller in callers]
        assert [Raised] * len(callers) == [type(outcome) for outcome in outcomes], outcomes
        return [outcome.error for outcome in outcomes]

    async def awaited(self, future):
        """Wait for a future of either engine; return its result."""
        await self.until(future.done)
        return future.result()

    def flush(self):
        self.fn.flush()

    def close(self):
        self.fn.close()

    async def aclose(self):
        await self.fn.aclose()

    def forget(self):
        """Drop all references to items and results."""
        self.batches.clear()
        self.callers.clear()

    def shut(self):
        """Stop batches at the gate."""
        self._open.clear()

    def open(self):
        """Open the gate."""
        self._open.set()
        self._open_on_loop.set()
        self._open_on_loop = asyncio.Event()

    async def at_gate(self, batches=1):
        """Wait until so many batches have begun."""
        await self.until(lambda: len(self.batches) == batches)


class OfFunction(Column):
    """A decorated function."""

    def build_of(self, fn, **options):
        self.fn = microbatch(fn, **options)

    @property
    def stats(self):
        return self.fn.batch_stats

    def ask(self, item):
        return self.fn(item)

    def put(self, item):
        return self.fn.submit(item)

    def map(self, items):
        return self.fn.map(items)

    @property
    def is_running(self):
        return not self.fn._self_instances.closed


class OfClass(Column):
    """A batcher of one of the classes."""

    restarts = True
    make: type

    def build_of(self, fn, max_size=32, timeout=None, **options):
        self.fn = self.make(fn, max_size, timeout, **options)

    @property
    def stats(self):
        return self.fn.stats

    def ask(self, item):
        return self.fn.submit(item)

    def put(self, item):
        return self.fn._submit_nowait(item)

    def map(self, items):
        return self.fn.submit_many(items)

    @property
    def is_running(self):
        return self.fn.is_running


class AsyncioFunction(OfFunction):
    """An ``async def`` function, awaited by tasks."""

    name = "asyncio function"


class AsyncClass(OfClass):
    """The class for event loops, with an ``async def`` function."""

    name = "AsyncMicrobatcher"
    make = AsyncMicrobatcher

    async def start(self):
        await self.fn.start()


class AsyncClassOfDef(AsyncClass):
    """The class for event loops, with a plain function."""

    name = "AsyncMicrobatcher of def"
    on_loop = False


class Blocking:
    """Callers block, each in a thread of its own."""

    tasks = on_loop = False

    def caller(self, call):
        outcome = self.loop.create_future()

        def blocked():
            try:
                answer = Returned(call())
            except BaseException as error:
                answer = Raised(error)
            self.loop.call_soon_threadsafe(outcome.set_result, answer)

        threading.Thread(target=blocked, name="caller", daemon=True).start()
        return outcome


class ThreadFunction(Blocking, OfFunction):
    """A plain function, called by threads."""

    name = "thread function"


class SyncClass(Blocking, OfClass):
    """The class for threads."""

    name = "SyncMicrobatcher"
    make = SyncMicrobatcher

    async def start(self):
        self.fn.start()


class Acall(OfFunction):
    """A plain function, awaited by tasks."""

    name = "acall"
    on_loop = False

    def ask(self, item):
        return self.fn.acall(item)


class Debug:
    """The loop is in debug mode, in which it checks the thread of its callers."""

    @staticmethod
    def new_loop():
        loop = HastyLoop()
        loop.set_debug(True)
        return loop


class OnUvloop:
    """The loop is one of uvloop."""

    missing = "" if uvloop else "uvloop is not installed, or not made for this system"

    @staticmethod
    def new_loop():
        return uvloop.new_event_loop()


COLUMNS = [AsyncioFunction, AsyncClass, AsyncClassOfDef, ThreadFunction, SyncClass, Acall]
# The same columns on other loops, for which the promises are the same.
COLUMNS += [
    type(kind.__name__ + column.__name__, (kind, column), {"name": f"{column.name}, {says}"})
    for kind, says in ((Debug, "debug"), (OnUvloop, "uvloop"))
    for column in (AsyncioFunction, AsyncClassOfDef, Acall)
]


@dataclass(frozen=True)
class Fault:
    """A row of the table: a fault, and the promise that holds all the same."""

    name: str
    promise: str
    scenario: Callable[..., Coroutine]
    # The arguments of the scenario beside the column.
    arguments: tuple
    # Whether the fault can happen in a column.
    where: Callable[[type[Column]], bool]


class Table:
    """Faults, each with the columns in which it can happen."""

    def __init__(self):
        self.faults = []

    def row(self, name, promise, *arguments, where=lambda column: True):
        """Add a scenario that proves the promise."""

        def add(scenario):
            self.faults.append(Fault(name, promise, scenario, arguments, where))
            return scenario

        return add

    def cells(self):
        """Return the cells as parameters of a test."""
        return [
            pytest.param(
                fault,
                column,
                id=f"{fault.name}-{column.name}",
                marks=[pytest.mark.skip(reason=column.missing)] if column.missing else [],
            )
            for fault in self.faults
            for column in COLUMNS
            if fault.where(column)
        ]


def check(fault, column, caplog):
    """Play one cell; assert that it logs the expected messages and no others, garbage collection included."""
    # Otherwise the collector traverses all objects of pytest, hundreds of times.
    gc.freeze()
    try:
        played = column()
        played.play(lambda column: fault.scenario(column, *fault.arguments))
        expected = played.log
        del played
        gc.collect()
    finally:
        gc.unfreeze()
    logged = [record.getMessage() for record in caplog.records]
    assert expected == [message[: len(begin)] for message, begin in zip(logged, expected, strict=False)]
    assert len(expected) == len(logged), logged
