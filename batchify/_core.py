"""The core: which items leave together, when, and why.

Rules
-----
1. Everything that decides about batches lives here. A shell (asyncio, threads, a simulator) only does what it is told.
2. There is no clock, lock, loop or future in here, and nothing is called back: ``now`` is an argument, a waiter is an
   opaque object that is handed back with its batch, and whoever calls must not call from two threads at once.
3. An arrival that changes nothing costs one append, so that nothing can tear it: a signal handler may raise anywhere.
   Everything else happens once a batch.

Theory
------
Items stand in one line, in order of arrival, each with its waiter and its time of arrival. The line's head is an index
that moves on as batches leave; what lies before it is cut off now and then, so that a departure costs a slice and no
shifting. A *ticket* is the number of an arrival, counted from the first one; it says where in the line an item stands,
so that a caller can leave from the middle at a constant price: its place is then empty.

A shell repeats ``take()`` until it returns ``None``:

    ticket = core.add(item, waiter, now)    an item arrived
    batch = core.take(now)                  the next batch that may leave now, or None
    core.finish(batch, now)                 the batch is over, however it ended
    core.withdraw(ticket)                   the caller left, before its item did
    core.abandon(ticket)                    the caller left, after its item did

It asks ``take()`` after ``finish``, at ``wake_at``, and when ``add`` hands out a ticket of ``alarm`` or above: the next
arrival that can change the answer. That is the first one of an empty line, or the one that fills a batch; while all
slots are busy there is none. ``rang()`` acknowledges the alarm, once it was acted upon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from sys import maxsize
from typing import TYPE_CHECKING, Any, TypeAlias

from batchify._timing import Adaptive, Window

if TYPE_CHECKING:
    from batchify._config import Config

    # Item, waiter, time of arrival.
    Place: TypeAlias = tuple[Any, Any, float]

NEVER = maxsize
# Below this length the line is not worth cutting.
SHORT = 1024


@dataclass(frozen=True)
class BatchItem:
    """One item that waits.

    Attributes:
        data: the item.
        future: the ``asyncio.Future`` or ``concurrent.futures.Future`` of its result; ``None`` for a blocked caller.
        enqueued_at: when it arrived, in seconds of the clock of the event loop, or of ``time.monotonic()``.
    """

    data: Any
    future: Any
    enqueued_at: float


class Line:
    """Arrivals in order. It is replaced whole when it is cut, so that any thread may count it."""

    __slots__ = ("base", "places")

    def __init__(self, base: int, places: list[Place | None]) -> None:
        # The ticket of the first place.
        self.base = base
        # An empty one is that of a caller who left, or of an item that has departed.
        self.places = places


class Batch:
    """Items that leave together, as parallel lists. The batch function owns ``items`` and may change it."""

    __slots__ = ("arrived", "departed", "items", "left", "max_size", "reason", "size", "tickets", "waiters")

    items: list[Any]
    waiters: list[Any]
    arrived: list[float]

    def __init__(self, places: list[Place], tickets: range, reason: str, max_size: int, now: float) -> None:
        self.items, self.waiters, self.arrived = map(list, zip(*places, strict=True))
        # How many items the batch function gets.
        self.size = len(places)
        # The arrivals it was taken from, those that had left before it departed included.
        self.tickets = tickets
        self.reason = reason
        # How many items would have been a full batch.
        self.max_size = max_size
        self.departed = now
        # How many of its callers left after it departed.
        self.left = 0

    def __repr__(self) -> str:
        return f"<Batch of {len(self.waiters)}, {self.reason}, departed at {self.departed:g}>"

    def drop(self, gone: list[bool]) -> None:
        """Take out those for whom ``gone`` is true, who left at the last moment and will call ``abandon()`` yet."""
        stays = [not g for g in gone]
        self.items = list(compress(self.items, stays))
        self.waiters = list(compress(self.waiters, stays))
        self.arrived = list(compress(self.arrived, stays))
        self.size = len(self.items)
        self.left -= sum(gone)

    def forget(self) -> None:
        """Let go of items and waiters: a frame that outlives the batch in a traceback must not keep them alive."""
        self.items = []
        self.waiters = []


class Core:
    """The waiting line of one batcher and the slots its batches run in."""

    __slots__ = (
        "_concurrency",
        "_freed_at",
        "_freed_before",
        "_gone",
        "_head",
        "_line",
        "_max_size",
        "_pushed",
        "_pushed_before",
        "_timing",
        "alarm",
        "running",
    )

    def __init__(self, config: Config) -> None:
        self._max_size = config.max_size
        self._concurrency = config.concurrency
        self._timing = Adaptive(config.concurrency) if config.timeout is None else Window(config.timeout)
        self._line = Line(0, [])
        # The place in the line where waiting begins; it is never empty.
        self._head = 0
        # Empty places behind the head.
        self._gone = 0
        # The batches that have left and are not over, oldest first.
        self.running: list[Batch] = []
        # When a slot fell free while all were busy, and the first ticket that had not arrived by then.
        self._freed_at = float("-inf")
        self._freed_before = 0
        # Tickets below this one leave without waiting any longer, for the reason beside it.
        self._pushed_before = 0
        self._pushed = ""
        # The ticket whose arrival makes take() worth asking, or NEVER.
        self.alarm = 0

    def __repr__(self) -> str:
        return f"<Core: {self.waiting} waiting, {len(self.running)} of {self._concurrency} running>"

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._line.places) - self._head - self._gone

    @property
    def places(self) -> list[Place]:
        """What waits, in order of arrival."""
        return [place for place in self._line.places[self._head :] if place is not None]

    @property
    def arrivals(self) -> int:
        """How many items ever arrived; also the ticket of the next one. May be read from any thread."""
        line = self._line
        return line.base + len(line.places)

    @property
    def wake_at(self) -> float | None:
        """When ``take()`` is next worth asking if nothing else happens; ``None`` if never."""
        if not self.waiting or len(self.running) >= self._concurrency:
            return None
        arrived = self._first_arrived()
        if self.waiting >= self._max_size or self._line.base + self._head < self._pushed_before:
            return arrived
        return self._timing.due(arrived, len(self.running))

    def add(self, item: Any, waiter: Any, now: float) -> int:
        """Put ``item`` at the end of the line and return its ticket, to be compared with ``alarm``."""
        line = self._line
        ticket = line.base + len(line.places)
        line.places.append((item, waiter, now))
        return ticket

    def rang(self) -> bool:
        """Set the next alarm after this one was heard; say whether a full batch may leave now."""
        self._set_alarm()
        return self.waiting >= self._max_size and len(self.running) < self._concurrency

    def take(self, now: float) -> Batch | None:
        """Return the next batch that may leave at ``now``, or ``None``."""
        reason = self._reason(now)
        if reason is None:
            self._set_alarm()
            return None
        batch = self._cut(reason, now)
        self.running.append(batch)
        self._timing.departed(now)
        self._set_alarm()
        return batch

    def finish(self, batch: Batch, now: float) -> None:
        """Free the slot of ``batch``."""
        if len(self.running) == self._concurrency:
            self._freed_at = now
            self._freed_before = self.arrivals
        self.running.remove(batch)
        # A batch that nobody waited for was not run, and tells nothing of run times.
        if batch.waiters:
            self._timing.ended(now - batch.departed)
        self._set_alarm()

    def withdraw(self, ticket: int) -> Place | None:
        """Take out an item whose caller left, and return its place, ``None`` if it does not wait any more.

        Doing it twice does no harm. The place is returned so that a shell can drop it, and with it perhaps the last
        reference to an item that has a finalizer, when it holds no lock.
        """
        line = self._line
        place = ticket - line.base
        taken = None if place < self._head else line.places[place]
        if taken is None:
            return None
        line.places[place] = None
        self._gone += 1
        self._advance(self._head)
        self._set_alarm()
        return taken

    def abandon(self, ticket: int) -> Batch | None:
        """Note that a caller left whose item is running; return its batch if that was the last caller of it."""
        batch = next((b for b in self.running if ticket in b.tickets), None)
        if batch is None:
            return None
        batch.left += 1
        return batch if batch.left == len(batch.waiters) else None

    def push(self, reason: str) -> None:
        """Let all that waits now leave as soon as there are slots, for ``reason``: ``"flush"`` or ``"close"``."""
        self._pushed = reason
        self._pushed_before = self.arrivals

    def _reason(self, now: float) -> str | None:
        """Say why a batch may leave now, ``None`` if none may."""
        if not self.waiting or len(self.running) >= self._concurrency:
            return None
        if self.waiting >= self._max_size:
            return "full"
        head = self._line.base + self._head
        if head < self._pushed_before:
            return self._pushed
        due = self._timing.due(self._first_arrived(), len(self.running))
        if due > now:
            return None
        if head < self._freed_before and due <= self._freed_at:
            return "slot"
        return "idle" if isinstance(self._timing, Adaptive) and not self.running else "timeout"

    def _first_arrived(self) -> float:
        """Return when the head of the line arrived."""
        head = self._line.places[self._head]
        assert head is not None  # noqa: S101  # _advance() sees to it
        return head[2]

    def _cut(self, reason: str, now: float) -> Batch:
        """Take the first items of the line, at most ``max_size``, out of it."""
        line, start = self._line, self._head
        end = min(start + self._max_size, len(line.places))
        if self._gone:
            end = self._stretch(end)
        places = [place for place in line.places[start:end] if place is not None]
        batch = Batch(places, range(line.base + start, line.base + end), reason, self._max_size, now)
        # The line must not hold on to what has left until it is cut.
        line.places[start:end] = [None] * (end - start)
        self._gone -= end - start - len(places)
        self._advance(end)
        return batch

    def _stretch(self, end: int) -> int:
        """Move ``end`` on until as many items stand before it as a batch may have, not counting those that left."""
        places = self._line.places
        missing = sum(place is None for place in places[self._head : end])
        while missing and end < len(places):
            missing -= places[end] is not None
            end += 1
        return end

    def _advance(self, head: int) -> None:
        """Let waiting begin at ``head`` or the first place after it that is not None; cut the line now and then."""
        line = self._line
        end = len(line.places)
        while head < end and line.places[head] is None:
            head += 1
            self._gone -= 1
        if head == end or head > max(SHORT, end // 2):
            self._line = Line(line.base + head, line.places[head:])
            head = 0
        self._head = head

    def _set_alarm(self) -> None:
        if len(self.running) >= self._concurrency:
            self.alarm = NEVER
        elif not self.waiting:
            self.alarm = self.arrivals
        else:
            self.alarm = self.arrivals + self._max_size - self.waiting - 1
