"""Streams of ``def`` generator functions: how their calls begin, and how a thread reads one.

Must not know: batches, event loops, decorators.
"""

from __future__ import annotations

import atexit
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.registry import batchers
from batchify._batcher.streams import BaseStream, Channel, EndOfStream, run
from batchify._threads.batcher import SyncMicrobatcher, load_bridge
from batchify._threads.engine import leave_soon
from batchify._threads.waiters import held_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ref

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._threads.engine import ThreadEngine


class ThreadStreams(SyncMicrobatcher[Any, Any]):
    """A batcher for a ``def`` generator function: a call returns a stream."""

    _awaited = "async for value in "

    @classmethod
    def _from_source(cls, source: Callable[..., Callable[[list[Any]], Any]], config: Config) -> Self:
        def run_all(elsewhere: BatchExecutor | None) -> Callable[[list[Any]], Any]:
            return partial(run, source(elsewhere))

        return super()._from_source(run_all, config)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        channel = ThreadChannel()

        def enter() -> ThreadChannel:
            self._warn_on_loop("")
            return channel.enter(self, item)

        return Stream(enter, channel, keep)

    def _submit_nowait(self, item: Any) -> Any:
        """Queue ``item`` at once and return its stream. Without room for the item, block."""
        channel = ThreadChannel()
        if self._config.max_pending is not None:
            channel.gate = held_lock()
        stream = Stream(partial(channel.enter, self, item), channel)
        stream.begin()
        if channel.gate is not None:
            self._wait_for_room(self._ensure_engine(), channel.gate, stream.close)
        return stream

    def _acall(self, item: Any, keep: object = None) -> Any:
        """Return a stream that a task on any event loop can read."""
        return (self._bridge or load_bridge()).open_stream(self, item, keep)

    def _await_result(self, call: Any) -> Any:
        return list(call)

    def _cancel(self, call: Any) -> None:
        call.leave()


class ThreadChannel(Channel):
    """A channel that threads read."""

    # The engine in which the item is queued.
    _engine: ref[ThreadEngine] | None = None
    _mark: int | None = None

    def __init__(self) -> None:
        self._values: SimpleQueue[Any] = SimpleQueue()
        self.put = self._values.put

    def enter(self, batcher: ThreadStreams, item: Any) -> Self:
        engine = batcher._ensure_engine()
        # Weak: a stream that is kept after its end must not keep the engine and its threads.
        self._engine = engine.workers.weak
        self._mark = engine.enter(item, self)
        if self.left:
            # Another thread closed the stream meanwhile.
            self.leave()
        return self

    def get(self) -> Any:
        engine = None if self._engine is None else self._engine()
        # Without an engine, the batch has ended and has put all values here.
        if engine is None or not self._values.empty():
            return self._values.get()
        engine.check_blocking()
        with Wait(engine.line.queue, engine.name) if current() else nullcontext():
            return self._values.get()

    def leave(self) -> None:
        super().leave()
        if self._engine is not None and self._mark is not None:
            leave_soon(self._engine, self._mark, self)


class Stream(BaseStream[ThreadChannel]):
    """The values for one item, as they arrive. A stream is an iterator."""

    __slots__ = ()

    def __init__(self, begin: Callable[[], ThreadChannel], channel: ThreadChannel, keep: object = None) -> None:
        super().__init__(begin, keep)
        # Set before the item is queued, so that an interrupted call can leave.
        self._channel = channel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            channel = self.begin()
            value = None if channel is None else channel.get()
        except BaseException:
            # An interrupt, such as Ctrl-C, leaves too.
            self.close()
            raise
        if channel is None:
            raise StopIteration
        if type(value) is not EndOfStream:
            return value
        self._forget()
        # For another reader.
        channel.put(EndOfStream())
        try:
            raise StopIteration if value.error is None else value.error
        finally:
            # The traceback refers to this frame, which must not refer back.
            del value, channel

    def close(self) -> None:
        """Give up the item and all further values."""
        self.leave()


# No thread reads the streams any more, and an endless generator would keep the process alive.
def _leave_all() -> None:
    for engine in filter(None, [batcher._engine for batcher in batchers() if isinstance(batcher, ThreadStreams)]):
        with engine.deferred, engine._lock:
            channels = [channel for _, channel, _ in engine.line.queue.entries]
            channels += [channel for batch in engine.line.queue.running for channel in batch.waiters]
        for channel in channels:
            channel.leave()


# The interpreter calls this when only daemon threads are left, and before the exit hooks of ``_threads.batcher``.
atexit.register(_leave_all)
