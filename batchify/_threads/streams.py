"""Streams of ``def`` generator functions: where their calls begin, and how a thread reads one.

Must not know: batches, event loops, decorators.
"""

from __future__ import annotations

import atexit
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from batchify._batcher.current import inside
from batchify._batcher.streams import End, Once, WaitingFeed, run, waiting, with_feed
from batchify._threads.batcher import SyncMicrobatcher, wait_for_room, warn_on_loop
from batchify._threads.engine import leave_soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from batchify._batcher.config import Config
    from batchify._threads.engine import ThreadEngine


class ThreadStreams(SyncMicrobatcher[Any, Any]):
    """A batcher for a ``def`` generator function: a call returns a stream."""

    @classmethod
    def from_source(cls, source: Callable[..., Callable[[list[Any]], Any]], config: Config) -> Self:
        return super().from_source(lambda elsewhere: partial(run, config.name, source(elsewhere)), config)

    def submit(self, item: Any, keep: object = None) -> Any:
        """Return a stream that is queued when it is first read."""
        return Stream(self, item, keep)

    def put(self, item: Any) -> Any:
        """Queue ``item`` at once and return its stream. Without room for it, it blocks until there is."""
        gate = Lock() if self._config.max_pending is not None else None
        stream = Stream(self, item, gate=gate)
        stream.begin()
        if gate is not None:
            wait_for_room(self.engine, gate, stream.close)
        return stream

    def submit_many(self, items: Iterable[Any], keep: object = None) -> list[list[Any]]:  # noqa: ARG002  # it is kept by being an argument
        """Return all values for each of ``items``. The first error is raised; the other streams are let go of then."""
        streams: list[Stream] = []
        try:
            for item in items:
                streams.append(self.put(item))  # noqa: PERF401  # what is queued when an item fails must be known
            return [list(stream) for stream in streams]
        finally:
            # The last first: else each would make way for the next one.
            for stream in reversed(streams):
                stream.close()

    def asubmit(self, item: Any, keep: object = None) -> Any:
        """Return a stream for a task on any event loop, which is queued when it is first read."""
        from batchify._asyncio.streams import AsyncStream, BridgedFeed  # noqa: PLC0415  # it is asyncio that costs

        return AsyncStream(lambda: BridgedFeed(self.engine, item), keep)


class ThreadFeed(WaitingFeed):
    """The way to a caller that reads in a thread.

    Args:
        engine: where its item is going to be queued.
        gate: if somebody waits for room, held for as long as there is none.
    """

    __slots__ = ("_engine", "_ticket", "_values", "gate")

    def __init__(self, engine: ThreadEngine, gate: Lock | None) -> None:
        super().__init__()
        self._values: SimpleQueue[Any] = SimpleQueue()
        self.gate = gate
        if gate is not None:
            gate.acquire()
        # Weak: a stream that is kept when it is over must not keep the engine, and its threads, with it.
        self._engine = engine.workers.weak
        self._ticket: int | None = None

    def enter(self, engine: ThreadEngine, row: Any) -> None:
        """Queue a row."""
        self._ticket = engine.enter(with_feed(row, self), self)

    def put(self, value: Any) -> None:
        self._values.put(value)

    def get(self) -> Any:
        """Return the next value, or the end. Blocks until there is one."""
        engine = self._engine()
        # A batch that is over has put everything here.
        if engine is None or not self._values.empty():
            return self._values.get()
        if engine.waits_for_this():
            raise engine.reentrant()
        if not inside():
            return self._values.get()
        with waiting(engine.queue, engine.name):
            return self._values.get()

    def leave(self) -> None:
        """Take the item out if it waits still, and drop what comes if not."""
        self.left = True
        # For another thread that reads.
        self.put(End())
        if self._ticket is not None:
            leave_soon(self._engine, self._ticket)


class Stream(Once):
    """The values for one item, as they come. It is an iterator, and ends as one.

    Args:
        batcher: where its item is queued.
        row: the item, and what it is queued with.
        keep: what must live until the end.
        gate: if somebody is going to wait for room, what for.
    """

    __slots__ = ("__weakref__", "_feed", "_gate", "_is_closed", "_keep", "_row", "_unbegun")

    def __init__(self, batcher: ThreadStreams, row: Any, keep: object = None, gate: Lock | None = None) -> None:
        self._unbegun: ThreadStreams | None = batcher
        self._row = row
        self._keep = keep
        self._gate = gate
        self._feed: ThreadFeed | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Queue the item, if nobody has done so yet."""
        batcher, self._unbegun = self._unbegun, None
        if batcher is None:
            return
        if self._gate is None:
            warn_on_loop(batcher.name, f"async for value in {batcher.name}.acall(item)")
        itself: Any = self
        _open[ref(itself, _forget)] = None
        engine = batcher.engine
        # It is there before the item is queued, so that whatever interrupts that can be left.
        self._feed = feed = ThreadFeed(engine, self._gate)
        row, self._row = self._row, None
        feed.enter(engine, row)
        if self._is_closed:
            # By another thread, in between.
            feed.leave()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            self.begin()
            feed = self._feed
            value = None if feed is None else feed.get()
        except BaseException:
            # Ctrl-C, or what another signal handler raised, too.
            self.close()
            raise
        if feed is None:
            raise StopIteration
        if type(value) is not End:
            return value
        self._over()
        # For another thread that reads.
        feed.put(End())
        try:
            raise StopIteration if value.error is None else value.error
        finally:
            # Its traceback refers to this frame, which must not refer back.
            del value, feed

    def close(self) -> None:
        """Let go of the item, and of what it would still yield."""
        self._is_closed = True
        feed = self._feed
        self._over()
        if feed is not None:
            feed.leave()

    def _over(self) -> None:
        self._unbegun = self._row = self._feed = self._keep = None

    def __del__(self) -> None:
        self.close()


# The streams that have begun.
_open: dict[ref[Any], None] = {}


def _forget(gone: ref[Any]) -> None:
    _open.pop(gone, None)


def _end() -> None:
    """Let go of all streams: nobody reads them any more, and a generator without an end would keep the process."""
    for stream in [stream for known in list(_open) if (stream := known()) is not None]:
        stream.close()


# The interpreter calls it when all threads but daemons have ended, and before what ``_threads`` has registered.
atexit.register(_end)
