"""Streams: a generator function as a batch function, whose every yield brings each caller a value.

Decides: which value goes to which caller, when a stream ends, and whether any stream is still read.
Must not know: engines, threads, event loops, how a reader waits.
An engine runs a generator function like any other batch function: the run returns when the generator has ended, with
the error of each stream or ``None``. The waiter of a call is a ``Channel``. A stream refers to its channel, but the
channel never to the stream, so that a dropped stream leaves its batch at once.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from batchify._batcher.current import current
from batchify._batcher.waiters import Failed, Waiter
from batchify._core.outcome import DONE, exception_for, is_error, results, translate_exception, with_own_exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from batchify._core.batch import Batch

log = logging.getLogger("batchify")


class EndOfStream:
    """Follows the last value of a stream, with the error that ended it, if any."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Channel(Waiter):
    """The waiter of a stream: it brings the values for one caller from the batch to the reader."""

    # No slots: one kind of channel is an asyncio.Future too.
    error: BaseException | None = None
    # Whether the stream has ended before its batch.
    ended = False
    # Whether the reader has left.
    left = False
    # Passes a value, or the end, to the reader. A reader ignores all values after an end.
    put: Callable[[Any], None]

    @property
    def is_read(self) -> bool:
        return not (self.ended or self.left)

    def end(self, error: BaseException | None = None) -> None:
        self.ended = True
        self.error = error
        self.put(EndOfStream(error))

    def is_open(self) -> bool:
        return not self.left

    def answer(self, answer: Any) -> None:
        self.put(EndOfStream(answer.error if type(answer) is Failed else None))
        self.error = None

    def leave(self) -> None:
        """Remove the item if it is still queued; otherwise drop all further values."""
        self.left = True
        # If another thread or task is reading the stream, it must not wait forever.
        self.put(EndOfStream())

    # A finalizer runs on any thread.
    def leave_from_finalizer(self) -> None:
        self.leave()


C = TypeVar("C", bound=Channel)


class BaseStream(Generic[C]):
    """The values for one item, in order. The item is queued when the stream is first read."""

    __slots__ = ("__weakref__", "_begin", "_channel", "_keep")

    def __init__(self, begin: Callable[[], C], keep: object = None) -> None:
        # Queues the item and returns its channel.
        self._begin: Callable[[], C] | None = begin
        self._channel: C | None = None
        # An object that must live until the end.
        self._keep = keep

    def begin(self) -> C | None:
        """Queue the item if it is not queued yet; return the channel, or ``None`` after the end."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._channel = begin()
        return self._channel

    def leave(self) -> None:
        channel = self._channel
        self._forget()
        if channel is not None:
            channel.leave()

    def _forget(self) -> None:
        self._begin = self._channel = self._keep = None

    def __del__(self) -> None:
        # The exception of a signal handler may have interrupted the creation.
        channel = getattr(self, "_channel", None)
        if channel is not None:
            channel.leave_from_finalizer()

    def __reduce__(self) -> NoReturn:
        msg = "a stream cannot be copied or pickled: its values are read once"
        raise TypeError(msg)


def run(fn: Callable[[list[Any]], Generator[Any, Any, Any]], items: list[Any]) -> list[BaseException | None]:
    """Run a generator function until it ends or no stream is read any more; return the error of each stream."""
    batch = cast("Batch", current())
    try:
        try:
            with closing(fn(items)) as generator:
                for values in generator:
                    if not distribute(batch, values):
                        break
        except Exception as error:
            if not fail_open_streams(batch, error):
                raise
        return [channel.error for channel in batch.waiters]
    finally:
        # An exception of the generator refers to this frame, which must not keep the batch alive.
        del fn, items, batch


def distribute(batch: Batch, values: Any) -> bool:
    """Put each value of a yield into the channel of its caller; return whether any stream is still read."""
    without_padding = results(batch.name, batch.size + batch.padding, values, "yield")[: batch.size]
    for channel, value in zip(batch.waiters, with_own_exceptions(without_padding), strict=True):
        if channel.is_read:
            if value is DONE:
                channel.end()
            elif is_error(value):
                channel.end(translate_exception(value, batch.name, on_loop=False))
            else:
                channel.put(value)
    return is_read(batch)


def is_read(batch: Batch) -> bool:
    return any(channel.is_read for channel in batch.waiters)


def fail_open_streams(batch: Batch, error: Exception) -> bool:
    """Give ``error`` to the open streams if others have ended before; return ``False`` if it is for all callers."""
    if not any(channel.ended for channel in batch.waiters):
        return False
    if not is_read(batch):
        log.error("%s() raised after all streams of its batch had ended", batch.name, exc_info=error)
    for position, channel in enumerate(batch.waiters):
        if channel.is_read:
            channel.error = exception_for(error, batch.name, position, batch.size, on_loop=False)
    return True
