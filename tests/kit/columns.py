"""The columns of the fault table: each is one way to call a batch function.

A scenario, which runs on an event loop, drives all of them through the same methods.
"""

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
from batchify._batcher import live
from batchify.testing import VirtualLoop
from tests.kit.engines import HOUR, PATIENCE, counted_calls, doubled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

try:
    import uvloop
except ImportError:
    uvloop = None


class HungError(AssertionError):
    """A caller waits for an answer that never comes."""


def in_time(do, where=lambda: ""):
    """Run ``do()`` in a new thread and return its result; fail if it hangs."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), name="in time", daemon=True).start()
    if not wait([outcome], PATIENCE).done:
        forget_batchers()
        # Otherwise the interpreter joins the hanging thread at exit and hangs as well.
        threading._register_atexit(exit_immediately)
        message = f"hang: {where()}"
        raise HungError(message)
    return outcome.result()


def exit_immediately():
    """Exit the process without joining its threads."""
    sys.stdout.flush()
    os._exit(1)


def settle(outcome, do):
    """Run ``do()`` and set its result or error on ``outcome``."""
    try:
        outcome.set_result(do())
    except BaseException as error:
        outcome.set_exception(error)


def forget_batchers():
    """Unregister the batchers and threads of a failed test, so that no later code waits for them."""
    live._live.clear()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.name = "abandoned"


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


class ImpatientLoop(VirtualLoop):
    """Advances its clock while its threads run.

    A thread may wait at a gate that only opens after a timeout.
    """

    run_in_executor = asyncio.SelectorEventLoop.run_in_executor


class Column:
    """A batcher, its callers, and its batch function, which can wait at a gate.

    A scenario is a coroutine function that takes a column. ``play()`` runs it and then asserts that every caller has an
    answer, that the batcher still works, and that the statistics count every call.
    """

    name: str
    # Whether callers are tasks, which can be cancelled, or threads, which cannot.
    tasks = True
    # Whether the batch function runs on the loop.
    on_loop = True
    # Whether the batcher can be started again after it was closed.
    restarts = False
    new_loop = ImpatientLoop
    # The reason why this platform does not support the column, or "".
    missing = ""

    def __init__(self):
        self.loop = self.new_loop()
        self.answer = doubled
        # The items of each batch.
        self.batches = []
        # The number of calls that the batcher accepted, and their callers.
        self.calls = 0
        self.callers = []
        # The errors that stopped the loop, which only KeyboardInterrupt and SystemExit can do.
        self.escaped = []
        # The expected log messages, and whether the scenario closes the batcher.
        self.log = []
        self.closed = False
        self._open = threading.Event()
        self._open.set()
        self._open_on_loop = asyncio.Event()
        self._main = None

    def build(self, answer=doubled, **options):
        """Create the batcher; by default a batch starts when it has two items or is flushed."""
        self.answer = answer
        self.build_of(self.batch_function(), **{"max_size": 2, "timeout": HOUR, "name": "double", **options})

    def batch_function(self):
        """Return a batch function of the kind that this column accepts."""

        def double(items):
            self.batches.append(list(items))
            assert self._open.wait(PATIENCE), "the gate was not opened in time"
            return self.answer(items)

        async def double_on_loop(items):
            self.batches.append(list(items))
            if not self._open.is_set():
                await self._open_on_loop.wait()
            answer = self.answer(items)
            return await answer if inspect.iscoroutine(answer) else answer

        return double_on_loop if self.on_loop else double

    def play(self, scenario):
        """Run a scenario and the assertions that follow it."""
        try:
            in_time(lambda: self._run(scenario), self._where)
        except BaseException:
            forget_batchers()
            raise
        assert [] == self.escaped, "an error stopped the loop"

    def _run(self, scenario):
        async def main():
            await scenario(self)
            await self.assert_healthy()

        self._main = self.loop.create_task(main())
        try:
            while not self._main.done():
                self._run_loop()
            self._main.result()
        finally:
            self.open()
            self._close_loop()

    def _run_loop(self):
        try:
            self.loop.run_until_complete(self._main)
        except (KeyboardInterrupt, SystemExit) as error:
            if not self._main.done() or self._main.exception() is not error:
                self.escaped.append(error)

    def _close_loop(self):
        async def cancel_tasks():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.loop.run_until_complete(cancel_tasks())
        self.loop.close()

    def _where(self):
        """Return the stack of the waiting scenario."""
        waiting = self._main.get_coro()
        frames = []
        while inspect.iscoroutine(waiting) and waiting.cr_frame is not None:
            frames.append(waiting.cr_frame)
            waiting = waiting.cr_await
        return "\n" + "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())

    async def assert_healthy(self):
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
        self.assert_all_counted()
        assert (0, 0) == (self.stats.pending, self.stats.running)
        await self.aclose()
        # The name of a worker thread begins with the name of its batcher.
        await self.until(lambda: not any(thread.name.startswith("double") for thread in threading.enumerate()))

    def counted_calls(self):
        """Return the number of calls that the statistics count."""
        return counted_calls(self.stats)

    def assert_all_counted(self):
        """Assert that the statistics count every call."""
        assert self.calls == self.counted_calls()

    async def until(self, condition):
        """Wait until another thread or task makes ``condition()`` true."""
        while not condition():  # no event signals the change
            # A loop that only spins would starve the threads; this call yields to them.
            time.sleep(0)  # noqa: ASYNC251  # it returns at once
            await asyncio.sleep(0)

    async def call(self, *items):
        """Make one call for each item, and wait until each is counted before the next; return the callers."""
        callers = []
        for item in items:
            callers.append(self.attempt(item))
            self.calls += 1
            await self.until(lambda: self.counted_calls() == self.calls)
        return callers

    def attempt(self, item):
        """Call with an item, but neither expect it to be counted nor wait until it is; return the caller."""
        self.callers.append(self.caller(lambda: self.ask(item)))
        return self.callers[-1]

    def submit(self, item):
        """Queue an item and return the future of its result."""
        self.calls += 1
        return self.put(item)

    def caller(self, call):
        """Return a task that awaits ``call()``, or the future of a thread that runs it."""

        async def run():
            try:
                return Returned(await call())
            except BaseException as error:
                return Raised(error)

        return self.loop.create_task(run())

    async def outcome(self, caller):
        """Return the result or error of a call."""
        try:
            outcome = await caller
        except asyncio.CancelledError as error:
            return Raised(error)
        return outcome

    async def answers(self, callers):
        """Return the results of callers, none of which has an error."""
        outcomes = [await self.outcome(caller) for caller in callers]
        assert [Returned] * len(callers) == [type(outcome) for outcome in outcomes], outcomes
        return [outcome.value for outcome in outcomes]

    async def errors(self, callers):
        """Return the errors of callers, none of which has a result."""
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
        """Close the gate, so that batches wait at it."""
        self._open.clear()

    def open(self):
        """Open the gate, so that waiting batches continue."""
        self._open.set()
        self._open_on_loop.set()
        self._open_on_loop = asyncio.Event()

    async def at_gate(self, batches=1):
        """Wait until exactly ``batches`` batches have started."""
        await self.until(lambda: len(self.batches) == batches)


class OfFunction(Column):
    """The batcher of a decorated function."""

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
    """An instance of one of the engine classes."""

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
    """An ``async def`` function that tasks await."""

    name = "asyncio function"


class AsyncClass(OfClass):
    """The asyncio engine class with an ``async def`` function."""

    name = "AsyncMicrobatcher"
    make = AsyncMicrobatcher

    async def start(self):
        await self.fn.start()


class AsyncClassOfDef(AsyncClass):
    """The asyncio engine class with a ``def`` function."""

    name = "AsyncMicrobatcher of def"
    on_loop = False


class Blocking:
    """Each caller blocks in its own thread."""

    tasks = on_loop = False

    def caller(self, call):
        outcome = self.loop.create_future()

        def run():
            try:
                answer = Returned(call())
            except BaseException as error:
                answer = Raised(error)
            self.loop.call_soon_threadsafe(outcome.set_result, answer)

        threading.Thread(target=run, name="caller", daemon=True).start()
        return outcome


class ThreadFunction(Blocking, OfFunction):
    """A ``def`` function that threads call."""

    name = "thread function"


class SyncClass(Blocking, OfClass):
    """The thread engine class."""

    name = "SyncMicrobatcher"
    make = SyncMicrobatcher

    async def start(self):
        self.fn.start()


class Acall(OfFunction):
    """A ``def`` function that tasks await through ``acall()``."""

    name = "acall"
    on_loop = False

    def ask(self, item):
        return self.fn.acall(item)


class Debug:
    """A loop in debug mode, in which it checks that its methods are called from its own thread."""

    @staticmethod
    def new_loop():
        loop = ImpatientLoop()
        loop.set_debug(True)
        return loop


class OnUvloop:
    """A loop of uvloop."""

    missing = "" if uvloop else "uvloop is not installed or does not support this platform"

    @staticmethod
    def new_loop():
        return uvloop.new_event_loop()


COLUMNS = [AsyncioFunction, AsyncClass, AsyncClassOfDef, ThreadFunction, SyncClass, Acall]
# The same columns on other event loops, with the same promises.
COLUMNS += [
    type(kind.__name__ + column.__name__, (kind, column), {"name": f"{column.name}, {loop}"})
    for kind, loop in ((Debug, "debug"), (OnUvloop, "uvloop"))
    for column in (AsyncioFunction, AsyncClassOfDef, Acall)
]


@dataclass(frozen=True)
class Fault:
    """A row of the table: a fault, and the promise that holds in spite of it."""

    name: str
    promise: str
    scenario: Callable[..., Coroutine]
    # The arguments of the scenario after the column.
    arguments: tuple
    # Whether the fault can occur in a column.
    where: Callable[[type[Column]], bool]


class Table:
    """The faults, each with the columns in which it can occur."""

    def __init__(self):
        self.faults = []

    def row(self, name, promise, *arguments, where=lambda column: True):
        """Return a decorator that adds a row whose scenario tests the promise."""

        def add(scenario):
            self.faults.append(Fault(name, promise, scenario, arguments, where))
            return scenario

        return add

    def cells(self):
        """Return one test parameter set for each pair of a fault and its column."""
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
    """Run one cell, collect garbage, and assert that exactly the expected messages were logged."""
    # Without this, each of the hundreds of collections traverses all objects of pytest.
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
