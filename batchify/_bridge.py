"""The narrow bridge between the thread engine and event loops: how a task waits for an answer from a worker thread.

Must not know: batches, the core, who else waits.
"""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from batchify._batcher.current import inside
from batchify._batcher.cycles import called, calling
from batchify._batcher.waiters import Waiter
from batchify._core.outcome import shared_exception

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from batchify._threads.engine import ThreadEngine


class Deliverable(Protocol):
    """Somebody on an event loop for whom there is news."""

    @property
    def loop(self) -> AbstractEventLoop: ...
    def tell(self) -> None: ...


class Mailbox:
    """Answers on their way to one loop. The loop is woken once for all that are put in before it looks."""

    __slots__ = ("__weakref__", "_answered", "_woken")

    def __init__(self) -> None:
        self._answered: deque[Deliverable] = deque()
        self._woken = False

    def put(self, caller: Deliverable) -> None:
        """Deliver the answer of ``caller`` on its loop. May be called from any thread."""
        self._answered.append(caller)
        if not self._woken:
            self._woken = True
            try:
                caller.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                # The loop is closed: nobody is left to be told.
                self._woken = False
                self._answered.clear()

    def _deliver(self) -> None:
        # First this, then the rest: what is put in meanwhile is either seen here or wakes the loop again.
        self._woken = False
        while self._answered:
            self._answered.popleft().tell()


class TaskWaiter(Waiter):
    """A caller that awaits its answer on an event loop."""

    __slots__ = ("_future", "_mailbox", "_name", "error", "loop", "value")

    def __init__(self, loop: AbstractEventLoop, name: str) -> None:
        self.loop = loop
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

    def tell(self) -> None:
        """Hand the answer over, on the loop."""
        if self._future.done():
            return
        if self.error is None:
            self._future.set_result(self.value)
        else:
            self._future.set_exception(shared_exception(self.error, self._name, on_loop=True))


def mailbox_of(loop: AbstractEventLoop) -> Mailbox:
    """Return the one mailbox of ``loop``, made now if need be. It is there for as long as somebody refers to it."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = Mailbox()
    return mailbox


# Held by callers alone: a loop that is closed before it comes to its mailbox would be kept by what is in there.
_mailboxes: WeakValueDictionary[AbstractEventLoop, Mailbox] = WeakValueDictionary()


async def asubmit(engine: ThreadEngine, item: Any) -> Any:
    """Await the result for ``item`` from ``engine`` without blocking the loop."""
    caller = TaskWaiter(get_running_loop(), engine.name)
    batch = inside()
    queue = engine.queue
    if batch is not None:
        calling(batch, queue, engine.name)
    try:
        ticket = engine.enter(item, caller)
        try:
            return await caller._future
        except (CancelledError, GeneratorExit):
            engine.leave(ticket)
            if not caller.loop.is_closed():
                caller._future.cancel()
            raise
    finally:
        if batch is not None:
            called(batch, queue)
        # Its exception refers to this frame, which must not refer back.
        del caller
