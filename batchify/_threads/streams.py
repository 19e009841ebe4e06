"""Streams of ``def`` generator functions: where their calls begin, and how a thread reads one.

Must not know: batches, event loops, decorators.
"""

from __future__ import annotations

import atexit
from functools import partial
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import current
from batchify._batcher.cycles import Wait
from batchify._batcher.registry import batchers
from batchify._batcher.streams import BaseStream, Channel, EndOfStream, run
from batchify._threads.batcher import SyncMicrobatcher, wait_for_room, warn_on_loop
from batchify._threads.engine import leave_soon
from batchify._threads.waiters import held_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from weakref import ref

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._threads.engine import ThreadEngine


class ThreadStreams(SyncMicrobatcher[Any, Any]):
    """A batcher for a ``def`` generator function: a call returns a stream."""

    @classmethod
    def _from_source(cls, source: Callable[..., Callable[[list[Any]], Any]], config: Config) -> Self:
        return super()._from_source(lambda elsewhere: partial(run, source(elsewhere)), config)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        return Stream(self, item, ThreadChannel(), keep)

    def _submit_nowait(self, item: Any) -> Any:
        """Queue ``item`` at once and return its stream. Without room for it, it blocks until there is."""
        channel = ThreadChannel(bounded=self._config.max_pending is not None)
        stream = Stream(self, item, channel)
        stream.begin()
        if channel.gate is not None:
            wait_for_room(self._ensure_engine(), channel.gate, stream.close)
        return stream

    def submit_many(self, items: Iterable[Any], keep: object = None) -> list[list[Any]]:  # noqa: ARG002  # it is kept by being an argument
        """Return all values for each of ``items``. The first error is raised, and the other streams are left."""
        streams: list[Stream] = []
        try:
            for item in items:
                streams.append(self._submit_nowait(item))  # noqa: PERF401  # if an item fails, those before it must be known
            return [list(stream) for stream in streams]
        finally:
            # The last first: each would otherwise make room for the next.
            for stream in reversed(streams):
                stream.close()


class ThreadChannel(Channel):
    """A channel that threads read.

    Args:
        bounded: whether the queue has a bound, so that the caller may block until there is room.
    """

    # Where the item is queued, once it is.
    _engine: ref[ThreadEngine] | None = None
    _ticket: int | None = None

    def __init__(self, *, bounded: bool = False) -> None:
        self._values: SimpleQueue[Any] = SimpleQueue()
        self.put = self._values.put
        if bounded:
            self.gate = held_lock()

    def enter(self, batcher: ThreadStreams, item: Any) -> Self:
        """Queue the item."""
        if self.gate is None:
            warn_on_loop(batcher.name, f"async for value in {batcher.name}.acall(item)")
        engine = batcher._ensure_engine()
        # Weak: a stream that is kept after its end must not keep the engine and its threads.
        self._engine = engine.workers.weak
        self._ticket = engine.enter(item, self)
        if self.left:
            # Another thread has closed the stream meanwhile.
            self.leave()
        return self

    def get(self) -> Any:
        """Return the next value, or the end. Blocks until there is one."""
        engine = None if self._engine is None else self._engine()
        # A batch that has ended has put everything here.
        if engine is None or not self._values.empty():
            return self._values.get()
        if get_ident() in engine.threads:
            raise engine.reentrant()
        waiting = Wait(engine.queue, engine.name) if current() else None
        try:
            return self._values.get()
        finally:
            if waiting is not None:
                waiting.end()

    def leave(self) -> None:
        self.left = True
        # For another thread that reads.
        self.put(EndOfStream())
        if self._engine is not None and self._ticket is not None:
            leave_soon(self._engine, self._ticket)


class Stream(BaseStream[ThreadChannel]):
    """The values for one item, as they come. It is an iterator, and ends as one.

    Args:
        batcher: queues the item.
        item: one item.
        channel: the channel of the item.
        keep: an object that must live until the end.
    """

    __slots__ = ()

    def __init__(self, batcher: ThreadStreams, item: Any, channel: ThreadChannel, keep: object = None) -> None:
        super().__init__(partial(channel.enter, batcher, item), keep)
        # It is here before the item is queued, so that an interrupted call can leave.
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
        # For another thread that reads.
        channel.put(EndOfStream())
        try:
            raise StopIteration if value.error is None else value.error
        finally:
            # The traceback refers to this frame, which must not refer back.
            del value, channel

    def close(self) -> None:
        """Give up the item and the values that are still to come."""
        self.leave()


def _leave_all() -> None:
    """Leave all streams: no thread reads them any more, and an endless generator would keep the process alive."""
    for engine in filter(None, [batcher._engine for batcher in batchers() if isinstance(batcher, ThreadStreams)]):
        with engine.deferred, engine._lock:
            channels = [channel for _, channel, _ in engine.queue.entries]
            channels += [channel for batch in engine.queue.running for channel in batch.waiters]
        for channel in channels:
            channel.leave()


# The interpreter calls this when only daemon threads are left, and before the exit hooks of ``_threads.batcher``.
atexit.register(_leave_all)
