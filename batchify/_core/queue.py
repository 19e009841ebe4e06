"""The core: which items leave together, when, and why.

Rules
-----
1. Everything that decides about batches lives here, in ``_slots`` and in ``_groups``. A shell (asyncio, threads, a
   simulator) only does what it is told.
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

It asks ``take()`` after ``finish``, at ``wake_at``, and when ``add`` returns a ticket of ``wake_ticket`` or above: the
next arrival that can change the answer. That is the first one of an empty queue, or the one that fills a batch; while
all slots are busy there is none. ``reset_wake_ticket()`` sets the next one, once the shell has acted.

This is the core of a function whose calls are all alike. ``_groups`` has that of one whose calls ask for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from batchify._core.batch import Batch
from batchify._core.slots import NEVER, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchify._core.limits import Limits

    # Item, waiter, time of arrival.
    Entry: TypeAlias = tuple[Any, Any, float]

# Below this length the line is not worth cutting.
SHORT = 1024


class Line:
    """Arrivals in order. It is replaced whole when it is cut, so that any thread may count it."""

    __slots__ = ("base", "places")

    def __init__(self, base: int, places: list[Entry | None]) -> None:
        # The ticket of the first place.
        self.base = base
        # An empty one is that of a caller who left, or of an item that has departed.
        self.places = places


class PlainQueue(Slots):
    """The waiting line of one batcher and the slots its batches run in."""

    __slots__ = ("_gone", "_head", "_line")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._line = Line(0, [])
        # The place in the line where waiting begins; it is never empty.
        self._head = 0
        # Empty places behind the head.
        self._gone = 0

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._line.places) - self._head - self._gone

    @property
    def places(self) -> list[Entry]:
        """What waits, in order of arrival."""
        return [place for place in self._line.places[self._head :] if place is not None]

    def with_tickets(self) -> Iterator[tuple[int, Entry]]:
        """Return what waits, in order of arrival, with the tickets."""
        line = self._line
        for ticket, place in enumerate(line.places[self._head :], line.base + self._head):
            if place is not None:
                yield ticket, place

    @property
    def arrivals(self) -> int:
        """How many items ever arrived; also the ticket of the next one. May be read from any thread."""
        line = self._line
        return line.base + len(line.places)

    @property
    def has_full(self) -> bool:
        """Whether a full batch may leave now."""
        return self._free > 0 and self.waiting >= self._max_size

    @property
    def wake_at(self) -> float | None:
        """When ``take()`` is next worth asking if nothing else happens; ``None`` if never."""
        if self._free <= 0 or not (waiting := self.waiting):
            return None
        arrived = self._first_arrived()
        return arrived if waiting >= self._max_size else self._leaves_at(self._line.base + self._head, arrived)

    def add(self, item: Any, waiter: Any, now: float) -> int:
        """Put ``item`` at the end of the line and return its ticket, to be compared with ``wake_ticket``."""
        line = self._line
        ticket = line.base + len(line.places)
        line.places.append((item, waiter, now))
        return ticket

    def take(self, now: float) -> Batch | None:
        """Return the next batch that may leave at ``now``, or ``None``."""
        if self._free <= 0 or not (waiting := self.waiting):
            return None
        reason: str | None = "full"
        if waiting < self._max_size:
            reason = self._reason(self._line.base + self._head, self._first_arrived(), now)
        if reason is None:
            self._set_wake_ticket()
            return None
        return self._start(self._cut(reason, now), now)

    def withdraw(self, ticket: int) -> Entry | None:
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
        self._set_wake_ticket()
        return taken

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
        items, waiters, arrived = map(list, zip(*places))  # noqa: B905  # all are triples, and to check so takes time
        tickets = range(line.base + start, line.base + end)
        self._gone -= end - start - len(places)
        if end == len(line.places):
            self._line, self._head = Line(line.base + end, []), 0
        else:
            # The line must not hold on to what has left until it is cut.
            line.places[start:end] = [None] * (end - start)
            self._advance(end)
        return Batch(items, waiters, arrived, tickets, reason, self._max_size, now)

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

    def _set_wake_ticket(self) -> None:
        if self._free <= 0:
            self.wake_ticket = NEVER
        elif waiting := self.waiting:
            self.wake_ticket = self.arrivals + self._max_size - waiting - 1
        else:
            self.wake_ticket = self.arrivals
