"""The bridge from event loops to the thread engine: how a task waits for answers from a worker thread.

Must not know: batches, the core, how threads wait.
A waiter is a ``TaskWaiter`` or a future, as for an engine of the loop. The calls of one loop iteration enter the engine
together, and the answers of a batch return together, so both ways cost one wake-up for many calls.
"""

from __future__ import annotations

from _thread import get_ident
from asyncio import BaseEventLoop, Future, _get_running_loop, get_running_loop
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import compress
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from batchify._asyncio.engine import UnknownThread, find_loop
from batchify._asyncio.streams import AsyncStream, TaskChannel
from batchify._asyncio.waiters import (
    LOOKUP_IS_SLOW,
    PENDING,
    FailedWaiter,
    TaskWaiter,
    future_factory,
    future_of,
    new_waiter,
    only_kind,
    wake,
)
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.waiters import Failed, Waiter, registered_kinds
from batchify._clock import monotonic
from batchify._core.outcome import translate_exception
from batchify._core.queue import WIDTH
from batchify._threads.engine import leave_soon

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from batchify._asyncio.waiters import AsyncWaiter
    from batchify._threads.batcher import SyncMicrobatcher
    from batchify._threads.engine import ThreadEngine
    from batchify._threads.streams import ThreadStreams


class BridgedWaiter(Waiter):
    """The kind of a caller that awaits its answer on an event loop. The waiter is a ``TaskWaiter`` or a future."""

    @staticmethod
    def is_open(waiter: AsyncWaiter) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # the waiter is no instance
        return not waiter.done()

    @classmethod
    def gone(cls, waiters: list[Any]) -> list[bool]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        return [] if only_kind(waiters) is TaskWaiter else [waiter.done() for waiter in waiters]

    get_future = staticmethod(future_of)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # as above

    @staticmethod
    def admit(waiter: AsyncWaiter) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        """Do nothing: a task does not block until its item has room."""

    @classmethod
    def answer_all(cls, waiters: list[Any], answers: list[Any]) -> None:
        loops: set[Any] = {waiter.get_loop() for waiter in waiters}
        # A loop may be closed or gone by now, and then no task on it waits any more.
        with suppress(RuntimeError):
            if len(loops) == 1 and (loop := loops.pop()) is not None:
                loop.call_soon_threadsafe(_answer, waiters, answers)
        for loop in loops:
            chosen = [waiter.get_loop() is loop for waiter in waiters]
            cls.answer_all([*compress(waiters, chosen)], [*compress(answers, chosen)])


registered_kinds[TaskWaiter] = registered_kinds[FailedWaiter] = registered_kinds[Future] = BridgedWaiter


def _answer(waiters: list[AsyncWaiter], answers: list[Any], *, is_first: bool = True) -> None:
    answered: list[TaskWaiter] = []
    try:
        for waiter, answer in zip(waiters, answers, strict=True):
            if type(answer) is Failed:
                if not waiter.done():
                    waiter.set_exception(translate_exception(answer.error, answer.name, on_loop=True))
            elif type(waiter) is TaskWaiter:
                waiter.answer = answer
                answered.append(waiter)
            elif not waiter.done():
                waiter.set_result(answer)
        wake(iter(answered), tuple)
    except BaseException:
        if is_first:
            # A signal handler has interrupted this. Answering twice is harmless.
            get_running_loop().call_soon(partial(_answer, waiters, answers, is_first=False))
        raise


class Crossing:
    """The calls of one loop iteration on their way to an engine."""

    __slots__ = ("_dropped", "_engine", "_marks", "calls", "future", "loop", "mark", "threaded", "weak_loop")

    def __init__(self, engine: ThreadEngine, loop: AbstractEventLoop) -> None:
        self._engine = engine
        self.loop = loop
        # The loop if it knows the thread that runs it.
        self.threaded: Any = loop if isinstance(loop, BaseEventLoop) else UnknownThread
        self.weak_loop = ref(loop)
        # Creates the future that a call awaits; ``None`` if calls await a ``TaskWaiter``.
        self.future = future_factory(loop)
        # Item, waiter and time of arrival of each call, as in the plain queue.
        self.calls: list[Any] = []
        # The mark of the first call in the queue, and the number of calls that left before they were there.
        self.mark: int | None = None
        self._dropped = 0
        # The marks of the calls that entered one by one, by the id of the waiter: the frame of a caller refers to this
        # object, and must not refer to its waiter.
        self._marks: dict[int, int] = {}
        # First, because an interrupt must leave no crossing that nothing finishes.
        loop.call_soon(self._finish)
        engine.line.stats.follow(self)
        engine.crossings[self] = None
        engine.crossing = self

    @property
    def waiting(self) -> int:
        return len(self.calls) // WIDTH

    # A crossing holds waiting calls only. The other levels are those of the line.
    running_calls = slots = room = 0

    def _finish(self, most: float = inf) -> None:
        """Queue the calls at the end of their loop iteration. After an interrupt, try again if fewer calls are left."""
        try:
            self._engine.enter_all(self)
            if self.calls:
                self._enter_each()
        except BaseException:
            if self.waiting < most:
                # The other calls are still on their way.
                self.loop.call_soon(self._finish, self.waiting)
            raise
        self._engine.crossings.pop(self, None)
        self._engine.line.stats.retire(self)

    def _enter_each(self) -> None:
        """Queue the calls one by one, because the engine needs more than their items by now."""
        engine, calls = self._engine, self.calls[:]
        for item, waiter in zip(calls[::WIDTH], calls[1::WIDTH], strict=True):
            try:
                self._marks[id(waiter)] = engine.enter(item, waiter, partial(self._remove, waiter))
            except BaseException as error:  # noqa: PERF203  # it is for the caller
                self._remove(waiter)
                _answer([waiter], [Failed(error, engine.name)])
                if not isinstance(error, Exception):
                    raise

    def _remove(self, waiter: AsyncWaiter, place: int = 0) -> bool:
        """Remove a call that is at ``place`` or later. Return whether it was still on its way."""
        calls = self.calls
        with self._engine.line.stats.lock:
            while place < len(calls) and calls[place + 1] is not waiter:
                place += WIDTH
            is_on_the_way = place < len(calls)
            del calls[place : place + WIDTH]
        return is_on_the_way

    def leave(self, length: int, waiter: AsyncWaiter) -> None:
        """Drop a caller that has no answer yet. ``length`` is that of the list of calls just after its arrival."""
        if not _cancelled(waiter):
            return
        engine, stats = self._engine, self._engine.line.stats
        # A call that left before the crossing moved the later ones forward.
        first = max(0, length - WIDTH * (1 + self._dropped))
        with stats.lock:
            is_on_the_way = self._remove(waiter, first)
            if is_on_the_way:
                self._dropped += 1
                stats.left()
        if not is_on_the_way:
            engine.leave(self._marks.get(id(waiter), (self.mark or 0) + first // WIDTH), waiter)
        elif self.loop.is_closed() and not self.calls:
            self._finish()


def _cancelled(waiter: AsyncWaiter) -> bool:
    """Cancel a waiter and return whether it has no answer. On a closed loop, nothing can wake its task."""
    loop = waiter.get_loop()
    return not waiter.done() if loop is None or loop.is_closed() else waiter.cancel() or waiter.cancelled()


class Mailbox:
    """Values on their way to one loop, which is woken once for all that arrive before it runs."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._put: deque[BridgedChannel] = deque()
        self._woken = False

    # Called from any thread; the channel delivers its values on the loop.
    def put(self, channel: BridgedChannel) -> None:
        self._put.append(channel)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                # The loop is closed, and no task on it waits any more.
                self._woken = False
                self._put.clear()

    def _deliver(self) -> None:
        # Reset first: a channel that arrives meanwhile is either delivered here or wakes the loop again.
        self._woken = False
        try:
            while self._put:
                self._put[0].deliver()
                self._put.popleft()
        except BaseException:
            # A signal handler has interrupted this.
            self._loop.call_soon(self._deliver)
            raise


# Held by channels only: the undelivered values of a closed loop must not keep that loop alive.
_mailboxes: WeakValueDictionary[AbstractEventLoop, Mailbox] = WeakValueDictionary()


class BridgedChannel(TaskChannel):
    """A channel from a batch in a thread to a task."""

    def __init__(self, engine: ThreadEngine, item: Any) -> None:
        super().__init__(engine.name, engine.line.queue)
        self._mailbox = _mailboxes.setdefault(self.loop, Mailbox(self.loop))
        # Weak: a stream that is kept after its end must not keep the engine and its threads.
        self._engine = engine.workers.weak
        self._mark = engine.enter(item, self)

    @property
    def is_read(self) -> bool:
        # The readers on a closed loop have ended without leaving.
        return super().is_read and not self.loop.is_closed()

    def put(self, value: Any) -> None:
        self.values.append(value)
        self._mailbox.put(self)

    def leave(self) -> None:
        super().leave()
        leave_soon(self._engine, self._mark, self)


async def acall(batcher: SyncMicrobatcher[Any, Any], item: Any, keep: object = None) -> Any:  # noqa: ARG001  # the frame keeps it alive
    """Return the result for ``item`` to a task on any loop. ``keep`` lives until the answer."""
    engine = batcher._engine or batcher._ensure_engine()
    if engine.plain is None or current():
        return await _result_alone(engine, item)
    crossing = engine.crossing
    if crossing is None or (
        (not LOOKUP_IS_SLOW or crossing.threaded._thread_id != get_ident()) and crossing.loop is not _get_running_loop()
    ):
        crossing = Crossing(engine, find_loop(engine.name))
    if crossing.future is None:
        # As ``new_waiter()``, but without a call.
        waiter: Any = TaskWaiter()
        waiter.get_loop, waiter.answer, waiter.callback = crossing.weak_loop, PENDING, None
    else:
        waiter = crossing.future()
    calls = crossing.calls
    calls += (item, waiter, monotonic())
    length = len(calls)
    try:
        return await waiter
    except BaseException:
        crossing.leave(length, waiter)
        raise
    finally:
        # An exception refers to this frame, which must not refer back through the waiter.
        del waiter


def open_stream(batcher: ThreadStreams, item: Any, keep: object = None) -> AsyncStream:
    """Return the stream of ``item``, for a task on any loop. ``keep`` lives until the end."""
    return AsyncStream(lambda: BridgedChannel(batcher._ensure_engine(), item), keep)


async def _result_alone(engine: ThreadEngine, item: Any) -> Any:
    """Return the result of a call that needs more than its item, or comes from inside a batch."""
    waiter = new_waiter(find_loop(engine.name))
    wait = Wait(engine.line.queue, engine.name) if current() else None
    mark = None
    try:
        mark = engine.enter(item, waiter)
        return await waiter
    except BaseException:
        if mark is not None and _cancelled(waiter):
            engine.leave(mark, waiter)
        raise
    finally:
        if wait is not None:
            wait.end()
        del waiter
