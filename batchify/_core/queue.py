"""The plain queue, for calls that differ only in their items: which items leave together, when, and why.

Rules
-----
1. Items leave in order of arrival, at most ``max_size`` together.
2. An arrival that changes nothing costs one extension of a list. All other work happens once a batch.
3. Only one thread at a time may call the methods. Any thread may extend the list at any time.

Theory
------
Calls stay in ``places``, where they arrived: three places for each call, for its item, its waiter and its time of
arrival. One extension adds them all, and neither another thread nor a signal handler can interrupt it halfway. The list
is only ever changed in place, so other code may hold it meanwhile.

A batch is a slice of the list. The head is an index that advances as batches leave, so a departure shifts nothing. A
caller can leave from the middle: its places become empty. Empty places before the head are removed now and then.

A *ticket* is the number of an arrival. A call need not know its own: it remembers the ``mark``, a ticket that is at
most ``SPAN`` arrivals old, and a search for a caller that leaves starts there. So a call costs no memory for a ticket,
and a departure from the queue at most ``SPAN`` comparisons, however long the queue is.

A shell uses a queue in this way:

    mark = queue.mark
    queue.places += (item, waiter, now)      an item arrived
    batch = queue.take(now)                  the next batch that may leave now, or None
    queue.finish(batch, now)                 the batch ended, with or without an error
    queue.withdraw(mark, waiter)             the caller left while its item was queued: returns its entry, or None

At the time that ``plan()`` returns, a shell repeats ``take()`` until it returns ``None``. It calls ``plan()`` again
after each of the steps above. After an arrival, it does so only if ``places`` has reached ``wake_length``: no earlier
arrival can change the plan, because it neither is the first in an empty queue nor fills a batch. After the end of a
batch, ``wake_length`` is 0. Then the next arrival makes a plan, and a shell need not make one while the queue is empty.
"""

from __future__ import annotations

from itertools import compress
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from batchify._core.batch import Batch
from batchify._core.slots import SPAN, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchify._core.limits import Limits

    # Item, waiter, time of arrival.
    PlainEntry: TypeAlias = tuple[Any, Any, float]

# The number of places of a call.
WIDTH = 3
# A shorter list of places is not worth cutting.
SHORT = 1024 * WIDTH
# The waiter of an empty place: the caller has left, or its item has departed.
NOBODY = object()
EMPTY = (None, NOBODY, 0.0)


class PlainQueue(Slots):
    mark: int

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.places: list[Any] = []
        # The index of the first waiting call, and its ticket. That place is empty only if the queue is empty.
        self._head = self._head_ticket = 0
        # The number of empty places behind the head.
        self._gone = 0
        # Whether every arrival matters, because no call should join this queue any more.
        self.closed = False
        self.plan()

    @property
    def waiting(self) -> int:
        return (len(self.places) - self._head - self._gone) // WIDTH

    @property
    def entries(self) -> list[PlainEntry]:
        return [entry for _, entry in self.with_tickets(len(self.places))]

    def with_tickets(self, end: int) -> Iterator[tuple[int, PlainEntry]]:
        """Yield the entries up to this place, each after its ticket."""
        waiting = self.places[self._head : end]
        entries = zip(waiting[::WIDTH], waiting[1::WIDTH], waiting[2::WIDTH], strict=True)
        for ticket, entry in enumerate(entries, self._head_ticket):
            if entry[1] is not NOBODY:
                yield ticket, entry

    @property
    def arrivals(self) -> int:
        return self._head_ticket + (len(self.places) - self._head) // WIDTH

    @property
    def oldest_arrival(self) -> float:
        return self.places[self._head + 2] if self.waiting else inf

    @property
    def withdrawn(self) -> int:
        return self._head_ticket + self._gone // WIDTH - self.taken

    @property
    def has_full(self) -> bool:
        return len(self.running) < self._concurrency and self.waiting >= self._max_size

    def plan(self) -> float | None:
        """Return when the next batch may leave, if it is known, and find the next arrival that matters.

        If none of the next ``SPAN`` arrivals matters, it is the one after which the mark must be renewed.
        """
        places = self.places
        length, head, running = len(places), self._head, len(self.running)
        # No call until the wake length is set: a signal handler that changes the queue makes a plan of its own, whose
        # wake length this one must not replace.
        self.mark = self._head_ticket + (length - head) // WIDTH
        needed = SPAN
        at: float | None = None
        window: float | None = 0.0
        if running < self._concurrency:
            if not places:
                needed = 1
            else:
                at, missing = places[head + 2], self._max_size - (length - head - self._gone) // WIDTH
                if missing > 0:
                    if missing < SPAN:
                        needed = missing
                    if self._head_ticket >= self._flush_before:
                        window = self._timing.window
        self.wake_length = 0 if self.closed else length + WIDTH * needed
        if at is not None:
            at = self._timing.due(at, running) if window is None else at + window
        # A call that arrived meanwhile may have compared itself with the previous wake length.
        return at if len(places) == length else self.plan()

    def take(self, now: float) -> Batch | None:
        places, head = self.places, self._head
        waiting = (len(places) - head - self._gone) // WIDTH
        if not waiting or len(self.running) >= self._concurrency:
            return None
        is_full = waiting >= self._max_size
        reason = "full" if is_full else self._reason(self._head_ticket, places[head + 2], now)
        if reason is None:
            return None
        end = min(head + WIDTH * self._max_size, len(places))
        if self._gone:
            end = self._stretch(end)
        items, waiters = places[head:end:WIDTH], places[head + 1 : end : WIDTH]
        arrived = places[head + 2 : end : WIDTH]
        gone = 0
        if self._gone:
            stays = [waiter is not NOBODY for waiter in waiters]
            items, waiters, arrived = (list(compress(column, stays)) for column in (items, waiters, arrived))
            gone = self._gone - WIDTH * (len(stays) - len(waiters))
        batch = Batch(items, waiters, arrived, reason, self._max_size, now)
        self._advance(end, gone, (batch,), batch.size)
        if self._learner is not None:
            self._learner.departed(now)
        return batch

    def withdraw(self, mark: int, waiter: Any) -> PlainEntry | None:
        # The shell drops the entry when it holds no lock, because that may run the finalizer of an item.
        places, start = self.places, self._head + WIDTH * max(0, mark - self._head_ticket)
        for place in range(start, min(start + WIDTH * SPAN, len(places)), WIDTH):
            if places[place + 1] is waiter:
                entry = places[place], waiter, places[place + 2]
                places[place : place + WIDTH] = EMPTY
                self._gone += WIDTH
                self._advance(self._head, self._gone)
                return entry
        return None

    def withdraw_all(self) -> list[tuple[int, PlainEntry]]:
        """Withdraw all entries, and return them with their tickets."""
        end = len(self.places)
        entries = [*self.with_tickets(end)]
        self._advance(end, 0)
        # A call of another thread that arrived meanwhile may not know that it matters.
        return entries if self.plan() is None else entries + self.withdraw_all()

    def retire(self) -> tuple[list[tuple[int, PlainEntry]], int]:
        """Return all entries for another queue, and the number of their places. A call that joins later matters."""
        self.closed = True
        self.plan()
        end = len(self.places)
        return [*self.with_tickets(end)], end

    def mend(self) -> None:
        """Derive the number of empty places again, after an exception interrupted a method."""
        self._advance(self._head, WIDTH * self.places[self._head + 1 :: WIDTH].count(NOBODY))

    def _stretch(self, end: int) -> int:
        """Move ``end`` behind enough calls for a full batch, or to the end of the list."""
        places = self.places
        missing = sum(waiter is NOBODY for waiter in places[self._head + 1 : end : WIDTH])
        while missing and end < len(places):
            missing -= places[end + 1] is not NOBODY
            end += WIDTH
        return end

    def _advance(self, head: int, gone: int, batches: tuple[Batch, ...] = (), calls: int = 0) -> None:
        """Move the head to the first call at or after ``head``, after which ``gone`` places are empty.

        The calls before it depart in ``batches``. The list is cut if more than half of it is empty.
        """
        places = self.places
        end = len(places)
        while head < end and places[head + 1] is NOBODY:
            head += WIDTH
            gone -= WIDTH
        filling: tuple[Any, ...]
        cut, start, filling = head, 0, ()
        if head < end and head <= max(SHORT, end // 2):
            # Until the cut, the list must not keep departed items alive.
            cut, start, filling = 0, self._head, EMPTY * ((head - self._head) // WIDTH)
        # No call or jump in between: the exception of a signal handler leaves all of these changed, or none.
        places[start:head] = filling
        self._gone = gone
        self._head_ticket += (head - self._head) // WIDTH
        self._head = head - cut
        # The cut does not change how many arrivals precede the next plan.
        self.wake_length -= cut
        self.running += batches
        self.taken += calls
