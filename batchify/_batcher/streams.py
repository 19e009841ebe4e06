"""A generator function as a batch function: each value that it yields is handed out to the callers at once.

Decides: what of it goes to whom, when a stream ends, and whether anybody listens.
Must not know: engines, threads, event loops, how a caller waits.

An engine sees a batch function like any other, which returns when the generator has ended, and tells then how each
stream ended. A row of it has three parts: an item, its options, and the *feed* that leads to its caller. A feed belongs
to the batch. What a caller holds, the stream, refers to the feed and not the other way round, so that a stream that is
dropped goes at once and lets go of its place.
"""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast

from batchify._batcher.admission import Prioritized
from batchify._batcher.current import belongs_to, inside
from batchify._batcher.cycles import called, calling
from batchify._batcher.waiters import Waiter
from batchify._core.outcome import DONE, exception_for, results, shared_exception
from batchify.errors import ReentrantCallError, reentrant

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from batchify._batcher.current import Running
    from batchify._core.slots import Slots

log = logging.getLogger("batchify")


class End:
    """What comes after the last value of a stream: nothing, or an error."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Feed:
    """Where a running batch puts the values for one caller."""

    __slots__ = ("answer", "ended", "left")

    def __init__(self) -> None:
        # Whether the batch has ended it, before its own end, and with which error.
        self.ended = False
        self.answer: BaseException | None = None
        # Whether its caller has let go of it.
        self.left = False

    @property
    def listens(self) -> bool:
        """Whether its caller waits for more."""
        return not self.ended and not self.left

    def put(self, value: Any) -> None:
        """Give a value, or an ``End``, to the caller. What comes after an end is never seen."""
        raise NotImplementedError

    def end(self, error: BaseException | None = None) -> None:
        """Let the caller know that nothing more comes."""
        self.ended = True
        self.answer = error
        self.put(End(error))


class WaitingFeed(Waiter, Feed):
    """A feed that a thread engine tells how its batch ended."""

    __slots__ = ("error", "value")

    def __init__(self) -> None:
        super().__init__()
        self.value: Any = None
        self.error: BaseException | None = None

    def is_open(self) -> bool:
        return not self.left

    def wake(self) -> None:
        self.put(End(self.error))
        self.error = None


def with_feed(row: Any, feed: Feed) -> Any:
    """Return ``row``, an item with its options, together with the feed that leads to its caller."""
    if isinstance(row, Prioritized):
        return Prioritized((*row.row, feed), row.priority, row.time_limit)
    return (*row, feed)


class Once:
    """What is read once, and so by one reader: the base of streams."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        msg = "a stream cannot be copied or pickled: its values are read once"
        raise TypeError(msg)


def run(name: str, fn: Callable[[list[Any]], Generator[Any, Any, Any]], rows: list[Any]) -> list[BaseException | None]:
    """Run a generator function for ``rows``, until it ends or nobody listens; return how each stream ended."""
    feeds: list[Feed] = [row[2] for row in rows]
    try:
        try:
            with closing(fn(rows)) as generator:
                for values in generator:
                    if not hand_out(name, feeds, results(name, len(feeds), values, "yield")):
                        break
        except Exception as error:
            if not settled(name, feeds, error):
                raise
        return [feed.answer for feed in feeds]
    finally:
        # Who keeps an exception of the generator keeps this frame, and must not keep what is in it.
        del fn, rows, feeds


def hand_out(name: str, feeds: Sequence[Feed], values: list[Any]) -> bool:
    """Put each value into its feed, and say whether anybody listens still."""
    for feed, value in zip(feeds, values, strict=True):
        if feed.listens:
            if value is DONE:
                feed.end()
            # Not isinstance(), which asks the object: that is somebody else's code.
            elif issubclass(type(value), Exception):
                feed.end(shared_exception(value, name, on_loop=False))
            else:
                feed.put(value)
    return listened(feeds)


def listened(feeds: Sequence[Feed]) -> bool:
    """Say whether anybody waits for more."""
    return any(feed.listens for feed in feeds)


def is_done(feeds: Sequence[Feed]) -> bool:
    """Say whether nobody waits for more, though not all have left: if they have, an engine sees it."""
    return any(feed.ended for feed in feeds) and not listened(feeds)


def settled(name: str, feeds: Sequence[Feed], error: Exception) -> bool:
    """Say whether ``error`` is not for all callers, as some streams had ended before; if so, give it to the others.

    If it is for nobody, as when the generator is closed and raises, it is logged.
    """
    if not any(feed.ended for feed in feeds):
        return False
    if not listened(feeds):
        # A handler or filter of somebody else's must not harm those who had all they asked for.
        with suppress(Exception):
            log.error("%s() raised when nobody listened any more", name, exc_info=error)
    for position, feed in enumerate(feeds):
        if feed.listens:
            feed.answer = exception_for(error, name, position, len(feeds), on_loop=False)
    return True


@contextmanager
def waiting(queue: Slots, name: str) -> Generator[None]:
    """Note that the running code, which is part of a batch, waits for one in the line of ``queue``, that of ``name``.

    Raises:
        ReentrantCallError: that waits for the running code.
    """
    caller = cast("Running", inside())
    if belongs_to(queue.running):
        raise ReentrantCallError(reentrant(name))
    calling(caller, queue, name)
    try:
        yield
    finally:
        called(caller, queue)
