"""The bridge from event loops to the thread engine: how a task waits for answers from a worker thread.

Must not know: batches, the core, how threads wait.
"""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from batchify._asyncio.streams import AsyncStream, TaskChannel
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.waiters import Waiter
from batchify._core.outcome import translate_exception
from batchify._threads.engine import leave_soon
from batchify._threads.streams import ThreadStreams

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from batchify._threads.batcher import SyncMicrobatcher
    from batchify._threads.engine import ThreadEngine


class Mailbox:
    """Answers on their way to one loop, which is woken once for all that arrive before it runs."""

    __slots__ = ("__weakref__", "_answered", "_loop", "_woken")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._answered: deque[TaskWaiter | BridgedChannel] = deque()
        self._woken = False

    # Called from any thread; the waiter delivers its answer on the loop.
    def put(self, waiter: TaskWaiter | BridgedChannel) -> None:
        self._answered.append(waiter)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                # The loop is closed, and no task on it waits any more.
                self._woken = False
                self._answered.clear()

    def _deliver(self) -> None:
        # Reset first: a waiter that arrives meanwhile is either delivered here or wakes the loop again.
        self._woken = False
        while self._answered:
            self._answered.popleft().deliver()


def mailbox_of(loop: AbstractEventLoop) -> Mailbox:
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = Mailbox(loop)
    return mailbox


# Held by waiters only: the undelivered answers of a closed loop must not keep that loop alive.
_mailboxes: WeakValueDictionary[AbstractEventLoop, Mailbox] = WeakValueDictionary()


class TaskWaiter(Waiter):
    """A caller that awaits its answer on an event loop."""

    __slots__ = ("_future", "_mailbox", "_name", "error", "value")

    def __init__(self, loop: AbstractEventLoop, name: str) -> None:
        self._future = loop.create_future()
        self.value = self.error = None
        self._name = name
        self._mailbox = mailbox_of(loop)

    @property
    def future(self) -> Future[Any]:
        return self._future

    def is_open(self) -> bool:
        return not self._future.done()

    def wake(self) -> None:
        self._mailbox.put(self)

    def deliver(self) -> None:
        if self._future.done():
            return
        if self.error is None:
            self._future.set_result(self.value)
        else:
            self._future.set_exception(translate_exception(self.error, self._name, on_loop=True))


class BridgedChannel(TaskChannel):
    """A channel from a batch in a thread to a task."""

    def __init__(self, engine: ThreadEngine, item: Any) -> None:
        super().__init__(engine.name, engine.queue)
        self._mailbox = mailbox_of(self.loop)
        # Weak: a stream that is kept after its end must not keep the engine and its threads.
        self._engine = engine.workers.weak
        self._ticket = engine.enter(item, self)

    @property
    def is_read(self) -> bool:
        # The readers on a closed loop have ended without leaving.
        return super().is_read and not self.loop.is_closed()

    def put(self, value: Any) -> None:
        self.values.append(value)
        self._mailbox.put(self)

    def leave(self) -> None:
        super().leave()
        leave_soon(self._engine, self._ticket)


def acall(batcher: SyncMicrobatcher[Any, Any], item: Any, keep: object = None) -> Any:
    """Return a coroutine or a stream for ``item``, for a task on any loop. ``keep`` lives until the answer."""
    if isinstance(batcher, ThreadStreams):
        return AsyncStream(lambda: BridgedChannel(batcher._ensure_engine(), item), keep)
    return _result(batcher, item, keep)


async def _result(batcher: SyncMicrobatcher[Any, Any], item: Any, keep: object) -> Any:  # noqa: ARG001  # the frame keeps it alive
    engine = batcher._ensure_engine()
    loop = get_running_loop()
    caller = TaskWaiter(loop, engine.name)
    wait = Wait(engine.queue, engine.name) if current() else None
    try:
        ticket = engine.enter(item, caller)
        try:
            return await caller._future
        except (CancelledError, GeneratorExit):
            engine.leave(ticket)
            if not loop.is_closed():
                caller._future.cancel()
            raise
    finally:
        if wait is not None:
            wait.end()
        # An exception refers to this frame, which must not refer back through the future.
        del caller
