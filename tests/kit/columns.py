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
    """Somebody waits, and nobody is going to answer."""


def in_time(do, where=lambda: ""):
    """Return ``do()``, run in a thread of its own so that one that never returns is a failure and not a hang."""
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), name="in time", daemon=True).start()
    if not wait([outcome], PATIENCE).done:
        forget_batchers()
        # At its end the interpreter would join what hangs, and hang with it.
        threading._register_atexit(leave_at_once)
        told = f"hang: {where()}"
        raise HungError(told)
    return outcome.result()


def leave_at_once():
    """End the process without waiting for threads."""
    sys.stdout.flush()
    os._exit(1)


def settle(outcome, do):
    """Run ``do()`` and let ``outcome`` have what comes of it."""
    try:
        outcome.set_result(do())
    except BaseException as error:
        outcome.set_exception(error)


def forget_batchers():
    """Let nobody wait for what a failed test has left behind."""
    registry._live.clear()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.name = "left behind"


class Returned:
    """What a caller got."""

    def __init__(self, value):
        self.value = value


class Raised:
    """What a caller was told instead."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        return f"<raised {type(self.error).__name__}>"


class HastyLoop(VirtualLoop):
    """Time does not wait for the threads of the loop: one may stand at a gate that opens after a timeout."""

    run_in_executor = asyncio.SelectorEventLoop.run_in_executor


class Column:
    """A batcher, its callers and its batch function, which can be stopped at a gate.

    A scenario is a coroutine function that is given a column. ``play()`` runs it; after it every caller must have been
    answered, the batcher must work and every call be accounted for.
    """

    name: str
    # Whether callers are tasks of the loop, which can be cancelled, and not threads, which can't.
    tasks = True
    # Whether the batch function runs on the loop.
    on_loop = True
    # Whether it can be started again after it was stopped.
    restarts = False
    new_loop = HastyLoop
    # What is wrong with this Python that there is no such column.
    missing = ""

    def __init__(self):
        self.loop = self.new_loop()
        self.answer = doubled
        # The items of each batch.
        self.batches = []
        # How many calls were made that the batcher did not refuse, and who made them.
        self.calls = 0
        self.callers = []
        # What ended the loop, as KeyboardInterrupt and SystemExit do.
        self.escaped = []
        # What may be logged in the end, and whether the batcher may be closed.
        self.log = []
        self.closed = False
        self._open = threading.Event()
        self._open.set()
        self._open_on_loop = asyncio.Event()
        self._main = None

    def build(self, answer=doubled, **options):
        """Make the batcher: unless told otherwise, batches of two that leave when they are full or flushed."""
        self.answer = answer
        self.build_of(self.batch_function(), **{"max_size": 2, "timeout": HOUR, "name": "double", **options})

    def batch_function(self):
        """Return a batch function of the kind that this column takes."""

        def double(items):
            self.batches.append(list(items))
            assert self._open.wait(PATIENCE), "nobody opened the gate"
            return self.answer(items)

        async def double_on_loop(items):
            self.batches.append(list(items))
            if not self._open.is_set():
                await self._open_on_loop.wait()
            answer = self.answer(items)
            return await answer if inspect.iscoroutine(answer) else answer

        return double_on_loop if self.on_loop else double

    def play(self, scenario):
        """Run a scenario and what every one ends with."""
        try:
            in_time(lambda: self._run(scenario), self._where)
        except BaseException:
            forget_batchers()
            raise
        assert [] == self.escaped, "it escaped the loop"

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
        """Tell where the scenario waits."""
        waiting = self._main.get_coro()
        frames = []
        while inspect.iscoroutine(waiting) and waiting.cr_frame is not None:
            frames.append(waiting.cr_frame)
            waiting = waiting.cr_await
        return "\n" + "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())

    async def all_is_well(self):
        """Find every caller answered, the batcher working or closed as expected, and every call accounted for."""
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
        # Those of the batcher have its name.
        await self.until(lambda: not any(thread.name.startswith("double") for thread in threading.enumerate()))

    def accounted(self):
        """Return the number of calls that the statistics know of."""
        return accounted(self.stats)

    def balanced(self):
        """Find every call accounted for."""
        assert self.calls == self.accounted()

    async def until(self, condition):
        """Wait for another thread or task to make ``condition()`` true. If nobody does, the scenario hangs."""
        while not condition():  # there is no event to wait for
            # Threads that work for the loop get their turn too: a loop that spins keeps the interpreter to itself.
            time.sleep(0)  # noqa: ASYNC251  # that is what lets them
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
        """Call with an item, and neither count it nor see it queued; return the caller."""
        self.callers.append(self.caller(lambda: self.ask(item)))
        return self.callers[-1]

    def submit(self, item):
        """Queue an item and return the future of its result."""
        self.calls += 1
        return self.put(item)

    def caller(self, call):
        """Return a task that awaits ``call()``, or the future of a thread that blocks in it."""

        async def awaiting():
            try:
                return Returned(await call())
            except BaseException as error:
                return Raised(error)

        return self.loop.create_task(awaiting())

    async def outcome(self, caller):
        """Return what came of a call."""
        try:
            outcome = await caller
        except asyncio.CancelledError as error:
            return Raised(error)
        return outcome

    async def answers(self, callers):
        """Return what callers got, who all got something."""
        outcomes = [await self.outcome(caller) for caller in callers]
        assert [Returned] * len(callers) == [type(outcome) for outcome in outcomes], outcomes
        return [outcome.value for outcome in outcomes]

    async def errors(self, callers):
        """Return what callers were told, who all got an error."""
        outcomes = [await self.outcome(caller) for caller in callers]
        assert [Raised] * len(callers) == [type(outcome) for outcome in outcomes], outcomes
        return [outcome.error for outcome in outcomes]

    async def awaited(self, future):
        """Return the result of a future of either kind."""
        await self.until(future.done)
        return future.result()

    def flush(self):
        self.fn.flush()

    def close(self):
        self.fn.close()

    async def aclose(self):
        await self.fn.aclose()

    def forget(self):
        """Keep no item and no result alive."""
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
        """Wait until so many batches have come."""
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
    """A batcher made by one of the classes."""

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
                told = Returned(call())
            except BaseException as error:
                told = Raised(error)
            self.loop.call_soon_threadsafe(outcome.set_result, told)

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
    """The loop is in debug mode, and minds who calls it from which thread."""

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
# The same on other loops: whatever loop it is, the promise is the same.
COLUMNS += [
    type(kind.__name__ + column.__name__, (kind, column), {"name": f"{column.name}, {says}"})
    for kind, says in ((Debug, "debug"), (OnUvloop, "uvloop"))
    for column in (AsyncioFunction, AsyncClassOfDef, Acall)
]


@dataclass(frozen=True)
class Fault:
    """A row of the table: what goes wrong, and what is promised all the same."""

    name: str
    promise: str
    scenario: Callable[..., Coroutine]
    # What the scenario is given beside the column.
    arguments: tuple
    # Whether it can happen in a column.
    where: Callable[[type[Column]], bool]


class Table:
    """Faults, each with the columns that it can happen in."""

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
    """Play one cell, and find nothing logged, then or when the garbage is collected, but what it expects."""
    # So that the collector does not look through all that pytest has loaded, hundreds of times.
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
    assert expected == [told[: len(begin)] for told, begin in zip(logged, expected, strict=False)]
    assert len(expected) == len(logged), logged
