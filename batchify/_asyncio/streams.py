"""Streams for tasks: how one is read on an event loop, and where the calls of ``async def`` generator functions begin.

Must not know: batches, decorators.
"""

from __future__ import annotations

from asyncio import CancelledError, current_task, get_running_loop
from collections import deque
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from batchify._asyncio.batcher import AsyncMicrobatcher
from batchify._batcher.current import inside
from batchify._batcher.streams import End, Feed, Once, WaitingFeed, hand_out, is_done, settled, waiting, with_feed
from batchify._bridge import mailbox_of
from batchify._core.outcome import results, shared_exception
from batchify._threads.engine import leave_soon

if TYPE_CHECKING:
    from asyncio import Future, Task
    from collections.abc import AsyncGenerator, Callable, Iterable

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._core.slots import Slots
    from batchify._threads.engine import ThreadEngine


class LoopStreams(AsyncMicrobatcher[Any, Any]):
    """A batcher for an ``async def`` generator function: a call returns a stream."""

    @classmethod
    def from_source(cls, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> Self:
        return super().from_source(lambda: partial(arun, config.name, source()), config)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        return AsyncStream(partial(self._enter, item), keep)

    asubmit = submit

    def put(self, item: Any) -> Any:
        """Queue ``item`` at once and return its stream."""
        stream = AsyncStream(partial(self._enter, item))
        stream.begin()
        return stream

    async def submit_many(self, items: Iterable[Any], keep: object = None) -> list[list[Any]]:  # noqa: ARG002  # it is kept by being an argument
        """Return all values for each of ``items``. The first error is raised; the other streams are let go of then."""
        streams: list[AsyncStream] = []
        try:
            for item in items:
                streams.append(self.put(item))  # noqa: PERF401  # what is queued when an item fails must be known
            return [await _values(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.leave()

    def _enter(self, item: Any) -> LoopFeed:
        feed = LoopFeed(self.name)
        feed.future = super().put(with_feed(item, feed))
        feed.future.add_done_callback(feed.over)
        # The engine that it was just put into; there is none if another thread has closed the batcher since.
        feed.queue = None if self._engine is None else self._engine.queue
        return feed


async def _values(stream: AsyncStream) -> list[Any]:
    return [value async for value in stream]


async def arun(
    name: str, fn: Callable[[list[Any]], AsyncGenerator[Any, None]], rows: list[Any]
) -> list[BaseException | None]:
    """Run a generator function for ``rows``, until it ends or nobody listens; return how each stream ended."""
    feeds: list[LoopFeed] = [row[2] for row in rows]
    _link(feeds, feeds, current_task())
    try:
        try:
            async with Closing(fn(rows)) as generator:
                async for values in generator:
                    if not hand_out(name, feeds, results(name, len(feeds), values, "yield")):
                        break
        except CancelledError:
            if not is_done(feeds):
                raise
        except Exception as error:
            if not settled(name, feeds, error):
                raise
        return [feed.answer for feed in feeds]
    finally:
        _link(feeds, [], None)
        # Who keeps an exception of the generator keeps this frame, and must not keep what is in it.
        del fn, rows, feeds


class Closing(aclosing[Any]):
    """Closes a generator, but not where its task is torn down after its loop: then there is nothing to wait on."""

    async def __aexit__(self, *error: object) -> None:
        if error[0] is not GeneratorExit:
            await super().__aexit__(*error)


def _link(feeds: list[LoopFeed], others: list[LoopFeed], task: Task[Any] | None) -> None:
    for feed in feeds:
        feed.others, feed.task = others, task


class Inbox:
    """Values on their way to one task."""

    __slots__ = ("_reader", "loop", "values")

    def __init__(self) -> None:
        self.loop = get_running_loop()
        self.values: deque[Any] = deque()
        # What the task waits for.
        self._reader: Future[None] | None = None

    def put(self, value: Any) -> None:
        """Add a value, on the loop."""
        self.values.append(value)
        self.tell()

    def tell(self) -> None:
        """Wake the task, on the loop."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def is_read(self) -> bool:
        """Whether a task waits for a value."""
        return self._reader is not None

    async def wait(self) -> None:
        """Return when there is a value."""
        while not self.values:
            self._reader = self.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None


class LoopFeed(Feed):
    """The way to a caller on the loop that its batch runs on."""

    __slots__ = ("future", "inbox", "name", "others", "queue", "task")

    # How the engine tells of the end of the batch.
    future: Future[Any]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.inbox = Inbox()
        # The line in which its item stands.
        self.queue: Slots | None = None
        # While its batch runs: all feeds of that, and its task.
        self.others: list[LoopFeed] = []
        self.task: Task[Any] | None = None

    def put(self, value: Any) -> None:
        self.inbox.put(value)

    def over(self, future: Future[Any]) -> None:
        """Put the end after all values."""
        self.put(End(None if future.cancelled() else future.exception()))

    def leave(self) -> None:
        """Take the item out if it waits still, and drop what comes if not."""
        self.left = True
        if self.inbox.loop.is_closed():
            return
        # For another task that reads.
        self.put(End())
        if self.ended:
            # There is nothing to leave: its batch has given it all, and may be about to end in its own way.
            return
        self.future.cancel()
        if self.task is not None and is_done(self.others):
            self.task.cancel()

    def leave_from_finalizer(self) -> None:
        """Leave, from wherever a finalizer may run."""
        with suppress(RuntimeError):
            self.inbox.loop.call_soon_threadsafe(self.leave)


class BridgedFeed(WaitingFeed):
    """The way to a caller on a loop, for a batch that runs in a thread."""

    __slots__ = ("_engine", "_mailbox", "_ticket", "inbox", "name", "queue")

    def __init__(self, engine: ThreadEngine, row: Any) -> None:
        super().__init__()
        self.name = engine.name
        self.queue = engine.queue
        self.inbox = Inbox()
        self._mailbox = mailbox_of(self.inbox.loop)
        # Weak: a stream that is kept when it is over must not keep the engine, and its threads, with it.
        self._engine = engine.workers.weak
        self._ticket = engine.enter(with_feed(row, self), self)

    @property
    def listens(self) -> bool:
        # What a loop leaves behind when it is closed would listen for ever.
        return super().listens and not self.inbox.loop.is_closed()

    def put(self, value: Any) -> None:
        if type(value) is End and value.error is not None:
            value.error = shared_exception(value.error, self.name, on_loop=True)
        self.inbox.values.append(value)
        self._mailbox.put(self.inbox)

    def leave(self) -> None:
        """Take the item out if it waits still, and drop what comes if not."""
        self.left = True
        # For another task that reads.
        self.put(End())
        leave_soon(self._engine, self._ticket)

    # It may be done from any thread.
    leave_from_finalizer = leave


class AsyncStream(Once):
    """The values for one item, as they come. It is an asynchronous iterator, and ends as one.

    Args:
        begin: queues the item.
        keep: what must live until the end.
    """

    __slots__ = ("__weakref__", "_begin", "_feed", "_keep")

    def __init__(self, begin: Callable[[], LoopFeed | BridgedFeed], keep: object = None) -> None:
        self._begin: Callable[[], LoopFeed | BridgedFeed] | None = begin
        self._keep = keep
        self._feed: LoopFeed | BridgedFeed | None = None

    def begin(self) -> None:
        """Queue the item, if nobody has done so yet."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._feed = begin()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self.begin()
        feed = self._feed
        if feed is None:
            raise StopAsyncIteration
        if not feed.inbox.values:
            await self._value(feed)
        value = feed.inbox.values.popleft()
        if type(value) is not End:
            return value
        self._over()
        try:
            raise StopAsyncIteration if value.error is None else value.error
        finally:
            # Its traceback refers to this frame, which must not refer back.
            del value, feed

    async def _value(self, feed: LoopFeed | BridgedFeed) -> None:
        """Return when there is one."""
        if feed.inbox.is_read:
            msg = f"a stream of {feed.name}() is read by another task already; each call has one reader"
            raise RuntimeError(msg)
        try:
            if feed.queue is None or not inside():
                await feed.inbox.wait()
            else:
                with waiting(feed.queue, feed.name):
                    await feed.inbox.wait()
        except BaseException:
            # The reading task is cancelled, or torn down.
            self.leave()
            raise

    async def aclose(self) -> None:
        """Let go of the item, and of what it would still yield."""
        self.leave()

    def leave(self) -> None:
        """Do what ``aclose()`` does, at once."""
        feed = self._feed
        self._over()
        if feed is not None:
            feed.leave()

    def _over(self) -> None:
        self._begin = self._feed = self._keep = None

    def __del__(self) -> None:
        if self._feed is not None:
            self._feed.leave_from_finalizer()
