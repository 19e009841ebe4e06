"""Streams of ``async def`` generator functions: where their calls begin, and how a task reads one.

Must not know: batches, threads, decorators.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, get_running_loop
from collections import deque
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from batchify._asyncio.batcher import AsyncMicrobatcher
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.streams import (
    BaseStream,
    Channel,
    EndOfStream,
    distribute,
    fail_open_streams,
    is_read,
)
from batchify._core.outcome import results, translate_exception

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from typing_extensions import Self

    from batchify._asyncio.engine import AsyncEngine
    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._core.slots import Slots


async def run_async(
    fn: Callable[[list[Any]], AsyncGenerator[Any, None]], items: list[Any]
) -> list[BaseException | None]:
    """Run a generator function until it ends or no stream is read any more; return the error of each stream."""
    batch = cast("Batch", current())
    try:
        try:
            async with ClosingGenerator(fn(items)) as generator:
                async for values in generator:
                    if not distribute(batch, results(batch.name, batch.size, values, "yield")):
                        break
        except CancelledError:
            # If some streams have ended and the readers of all others have left, the batch has an answer for each.
            if is_read(batch) or not any(channel.ended for channel in batch.waiters):
                raise
        except Exception as error:
            if not fail_open_streams(batch, error):
                raise
        return [channel.error for channel in batch.waiters]
    finally:
        # An exception of the generator refers to this frame, which must not keep the batch alive.
        del fn, items, batch


class ClosingGenerator(aclosing[Any]):
    """Closes a generator, unless its task is torn down after its loop has ended: nothing could be awaited then."""

    async def __aexit__(self, *error: object) -> None:
        if error[0] is not GeneratorExit:
            await super().__aexit__(*error)


class TaskChannel(Channel):
    """A channel that a task reads.

    Args:
        name: the batcher's name.
        queue: the queue of the item.
    """

    def __init__(self, name: str, queue: Slots) -> None:
        super().__init__()
        self.loop = get_running_loop()
        self.name = name
        self._queue = queue
        # Not an asyncio.Queue: that fails if a reader is torn down after its loop is closed.
        self.values: deque[Any] = deque()
        # Resolved to wake the task that waits for a value.
        self.reader: Future[None] | None = None

    def deliver(self) -> None:
        """Wake the reader, on its loop."""
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    async def wait(self) -> None:
        """Return when there is a value."""
        waiting = Wait(self._queue, self.name) if current() else None
        try:
            while not self.values:
                self.reader = self.loop.create_future()
                await self.reader
        finally:
            self.reader = None
            if waiting is not None:
                waiting.end()


class LoopChannel(TaskChannel, Future[Any]):
    """A channel on the loop of its batch: the future that the engine resolves."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine._config.name, engine.queue)
        self.add_done_callback(LoopChannel._resolved, context=engine.empty_context)

    def put(self, value: Any) -> None:
        self.values.append(value)
        self.deliver()

    def _resolved(self) -> None:
        """Put the end after all values."""
        self.put(EndOfStream(None if self.cancelled() else self.exception()))

    def leave(self) -> None:
        self.left = True
        if self.loop.is_closed():
            return
        # For another task that reads.
        self.put(EndOfStream())
        # A stream that has ended is answered: its batch may still clean up, and counts it.
        if not self.ended:
            self.cancel()

    def leave_from_finalizer(self) -> None:
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.leave)


class AsyncStream(BaseStream[TaskChannel]):
    """The values for one item, as they come. It is an asynchronous iterator, and ends as one."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        channel = self.begin()
        if channel is None:
            raise StopAsyncIteration
        if not channel.values:
            if channel.reader is not None:
                msg = f"a stream of {channel.name}() is read by another task already; each call has one reader"
                raise RuntimeError(msg)
            try:
                await channel.wait()
            except BaseException:
                # The reading task is cancelled, or torn down.
                self.leave()
                raise
        value = channel.values.popleft()
        if type(value) is not EndOfStream:
            return value
        self._forget()
        try:
            if value.error is None:
                raise StopAsyncIteration
            raise translate_exception(value.error, channel.name, on_loop=True)
        finally:
            # The traceback refers to this frame, which must not refer back.
            del value, channel

    async def aclose(self) -> None:
        """Give up the item and the values that are still to come."""
        self.leave()


class LoopStreams(AsyncMicrobatcher[Any, Any]):
    """A batcher for an ``async def`` generator function: a call returns a stream."""

    _future_kind = LoopChannel

    @classmethod
    def _from_source(cls, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> Self:
        return super()._from_source(lambda: partial(run_async, source()), config)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        begin: Any = partial(super()._submit_nowait, item)
        return AsyncStream(begin, keep)

    def _submit_nowait(self, item: Any) -> Any:
        """Queue ``item`` at once and return its stream."""
        stream = self.submit(item)
        stream.begin()
        return stream

    async def submit_many(self, items: Iterable[Any], keep: object = None) -> list[list[Any]]:  # noqa: ARG002  # it is kept by being an argument
        """Return all values for each of ``items``. The first error is raised, and the other streams are left."""
        streams: list[AsyncStream] = []
        try:
            for item in items:
                streams.append(self._submit_nowait(item))  # noqa: PERF401  # if an item fails, those before it must be known
            return [await _values(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.leave()


async def _values(stream: AsyncStream) -> list[Any]:
    return [value async for value in stream]
