"""Streams of ``async def`` generator functions: how their calls begin, and how a task reads one.

Must not know: batches, threads, decorators.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections import deque
from contextlib import aclosing, nullcontext, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from batchify._asyncio.batcher import AsyncMicrobatcher
from batchify._asyncio.engine import find_loop
from batchify._asyncio.waiters import ItemFuture
from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.streams import BaseStream, Channel, EndOfStream, distribute, fail_open_streams, is_read
from batchify._core.outcome import translate_exception

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Callable

    from typing_extensions import Self

    from batchify._asyncio.engine import AsyncEngine
    from batchify._batcher.config import Config
    from batchify._core.batch import Batch
    from batchify._core.slots import Slots


async def run_async(
    fn: Callable[[list[Any]], AsyncGenerator[Any, None]], items: list[Any]
) -> list[BaseException | None]:
    batch = cast("Batch", current())
    try:
        try:
            async with ClosingGenerator(fn(items)) as generator:
                async for values in generator:
                    if not distribute(batch, values):
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
    """Closes a generator, unless its task is torn down after the end of its loop, where nothing can be awaited."""

    async def __aexit__(self, *error: object) -> None:
        if error[0] is not GeneratorExit:
            await super().__aexit__(*error)


class TaskChannel(Channel):
    def __init__(self, name: str, queue: Slots) -> None:
        super().__init__()
        self.loop = find_loop(name)
        self.name = name
        self._queue = queue
        # Not an asyncio.Queue: that fails if a reader is torn down after its loop is closed.
        self.values: deque[Any] = deque()
        # Resolved to wake the task that waits for a value.
        self.reader: Future[None] | None = None

    def deliver(self) -> None:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    async def wait(self) -> None:
        with Wait(self._queue, self.name) if current() else nullcontext():
            try:
                while not self.values:
                    self.reader = ReaderFuture(self)
                    await self.reader
            finally:
                self.reader = None


class ReaderFuture(Future[None]):
    """The future that a reader awaits. When its task is cancelled, it leaves at once, not only when the task wakes."""

    __slots__ = ("_channel",)

    def __init__(self, channel: TaskChannel) -> None:
        super().__init__(loop=channel.loop)
        self._channel = channel

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future, and leave the stream."""
        if not super().cancel(msg):
            return False
        self._channel.leave()
        return True


class LoopChannel(TaskChannel, ItemFuture):
    """A channel on the loop of its batch: the future that the engine resolves."""

    def __init__(self, engine: AsyncEngine, context: Context, **_: AbstractEventLoop) -> None:
        super().__init__(engine.line.name, engine.line.queue)
        # Not its own ``callback``, because the code that creates it sets that afterwards.
        super(ItemFuture, self).add_done_callback(LoopChannel._resolved, context=context)

    def is_awaited(self) -> bool:
        return not (self.ended or self.done())

    def put(self, value: Any) -> None:
        self.values.append(value)
        self.deliver()

    def _resolved(self) -> None:
        try:
            self.put(EndOfStream(None if self.cancelled() else self.exception()))
        except BaseException:
            # A signal handler has interrupted this. Ending twice is harmless.
            self.loop.call_soon(self._resolved)
            raise

    def leave(self) -> None:
        self.left = True
        if self.loop.is_closed():
            return
        # For another reader.
        self.put(EndOfStream())
        # The batch counts a stream that has ended as answered, and may still clean up.
        if not self.ended:
            self.cancel()

    def leave_from_finalizer(self) -> None:
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.leave)


class AsyncStream(BaseStream[TaskChannel]):
    """The values for one item, as they arrive. A stream is an asynchronous iterator."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        channel = self.begin()
        if channel is None:
            raise StopAsyncIteration
        if not channel.values:
            if channel.reader is not None:
                msg = f"a stream of {channel.name}() is already read by another task; each call has one reader"
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
        """Give up the item and all further values."""
        self.leave()


class LoopStreams(AsyncMicrobatcher[Any, Any]):
    """A batcher for an ``async def`` generator function: a call returns a stream."""

    @classmethod
    def _from_source(cls, source: Callable[[], Callable[[list[Any]], Any]], config: Config) -> Self:
        return super()._from_source(lambda: partial(run_async, source()), config)

    def _active_engine(self, loop: AbstractEventLoop) -> AsyncEngine:
        # First, because later calls skip these steps while the engine is active.
        engine = self._engine_of(loop)
        # An empty context for the callbacks of the channels, which would otherwise each keep a copy of their caller's.
        engine.item_future = partial(LoopChannel, engine, Context())
        engine.is_open = LoopChannel.is_awaited
        return super()._active_engine(loop)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        begin: Any = partial(super()._submit_nowait, item)
        return AsyncStream(begin, keep)

    def _submit_nowait(self, item: Any) -> Any:
        stream = self.submit(item)
        stream.begin()
        return stream

    async def _result_of(self, call: Any) -> list[Any]:
        return [value async for value in call]

    def _cancel(self, call: Any) -> None:
        call.leave()
