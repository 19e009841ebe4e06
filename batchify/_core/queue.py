"""The plain queue, for calls that differ only in their items: which items leave together, when, and why.

Rules
-----
1. Items leave in order of arrival, at most ``max_size`` together.
2. An arrival that changes nothing costs one append, which no signal handler can interrupt halfway. All other work
   happens once a batch.
3. Only one thread at a time may call the methods.

Theory
------
An entry is an item with its waiter and its time of arrival. One list holds the entries in order of arrival. The head is
an index that advances as batches leave, so a departure costs a slice and shifts nothing. A cut removes the empty places
before the head now and then. A *ticket* is the number of an arrival. It gives the place of the entry in the list, so
that a caller can leave from the middle at constant cost: its place becomes empty.

A shell uses a queue in this way:

    ticket = queue.add(item, waiter, now)    an item arrived
    batch = queue.take(now)                  the next batch that may leave now, or None
    queue.finish(batch, now)                 the batch ended, with or without an error
    queue.withdraw(ticket)                   the caller left while its item was queued: returns the entry, or None
    queue.abandon(ticket)                    the caller left while its item was running

A shell repeats ``take()`` until it returns ``None``, at the time ``wake_at``, after ``finish()``, and when ``add()``
returns a ticket of ``wake_ticket`` or above. The wake ticket is the first arrival that can change the answer: the first
in an empty queue, or the one that fills a batch. After this arrival, the shell calls ``reset_wake_ticket()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from batchify._core.batch import Batch
from batchify._core.slots import NEVER, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchify._core.limits import Limits

    # Item, waiter, time of arrival.
    PlainEntry: TypeAlias = tuple[Any, Any, float]

# A shorter list of arrivals is not worth cutting.
SHORT = 1024


class _Arrivals:
    """Entries in order of arrival. A cut makes a new object, so that any thread may count them without a lock."""

    __slots__ = ("base", "entries")

    def __init__(self, base: int, entries: list[PlainEntry | None]) -> None:
        # The ticket of the first place.
        self.base = base
        # A place is None if its caller left, or if its item departed.
        self.entries = entries


class PlainQueue(Slots):
    __slots__ = ("_arrivals", "_gone", "_head")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._arrivals = _Arrivals(0, [])
        # The place of the first waiting entry. It is empty only if the queue is empty.
        self._head = 0
        # The number of empty places behind the head.
        self._gone = 0

    @property
    def waiting(self) -> int:
        return len(self._arrivals.entries) - self._head - self._gone

    @property
    def entries(self) -> list[PlainEntry]:
        return [entry for entry in self._arrivals.entries[self._head :] if entry is not None]

    def with_tickets(self) -> Iterator[tuple[int, PlainEntry]]:
        arrivals = self._arrivals
        for ticket, entry in enumerate(arrivals.entries[self._head :], arrivals.base + self._head):
            if entry is not None:
                yield ticket, entry

    @property
    def arrivals(self) -> int:
        arrivals = self._arrivals
        return arrivals.base + len(arrivals.entries)

    @property
    def has_full(self) -> bool:
        return len(self.running) < self._concurrency and self.waiting >= self._max_size

    @property
    def wake_at(self) -> float | None:
        if len(self.running) >= self._concurrency or not (waiting := self.waiting):
            return None
        arrived = self._head_arrived()
        return arrived if waiting >= self._max_size else self._leaves_at(self._arrivals.base + self._head, arrived)

    def add(self, item: Any, waiter: Any, now: float) -> int:
        arrivals = self._arrivals
        ticket = arrivals.base + len(arrivals.entries)
        arrivals.entries.append((item, waiter, now))
        return ticket

    def take(self, now: float) -> Batch | None:
        if len(self.running) >= self._concurrency or not (waiting := self.waiting):
            return None
        reason: str | None = "full"
        if waiting < self._max_size:
            reason = self._reason(self._arrivals.base + self._head, self._head_arrived(), now)
        if reason is None:
            self.reset_wake_ticket()
            return None
        return self._start(self._cut(reason, now), now)

    def withdraw(self, ticket: int) -> PlainEntry | None:
        # The shell drops the entry when it holds no lock, because that may run the finalizer of an item.
        arrivals = self._arrivals
        place = ticket - arrivals.base
        entry = None if place < self._head else arrivals.entries[place]
        if entry is None:
            return None
        arrivals.entries[place] = None
        self._gone += 1
        self._advance(self._head)
        self.reset_wake_ticket()
        return entry

    def reset_wake_ticket(self) -> None:
        if len(self.running) >= self._concurrency:
            self.wake_ticket = NEVER
        elif waiting := self.waiting:
            self.wake_ticket = self.arrivals + self._max_size - waiting - 1
        else:
            self.wake_ticket = self.arrivals

    def _head_arrived(self) -> float:
        head = self._arrivals.entries[self._head]
        assert head is not None  # noqa: S101  # _advance() moved the head past all empty places
        return head[2]

    def _cut(self, reason: str, now: float) -> Batch:
        arrivals, start = self._arrivals, self._head
        end = min(start + self._max_size, len(arrivals.entries))
        if self._gone:
            end = self._stretch(end)
        entries = [entry for entry in arrivals.entries[start:end] if entry is not None]
        items, waiters, arrived = map(list, zip(*entries))  # noqa: B905  # all are triples, and a check takes time
        tickets = range(arrivals.base + start, arrivals.base + end)
        self._gone -= end - start - len(entries)
        if end == len(arrivals.entries):
            self._arrivals, self._head = _Arrivals(arrivals.base + end, []), 0
        else:
            # The list must not keep departed items alive until it is cut.
            arrivals.entries[start:end] = [None] * (end - start)
            self._advance(end)
        return Batch(items, waiters, arrived, tickets, reason, self._max_size, now)

    def _stretch(self, end: int) -> int:
        """Move ``end`` behind enough entries for a full batch, or to the end of the list."""
        entries = self._arrivals.entries
        missing = sum(entry is None for entry in entries[self._head : end])
        while missing and end < len(entries):
            missing -= entries[end] is not None
            end += 1
        return end

    def _advance(self, head: int) -> None:
        """Move the head to the first entry at or after ``head``, and cut the list if more than half of it is empty."""
        arrivals = self._arrivals
        end = len(arrivals.entries)
        while head < end and arrivals.entries[head] is None:
            head += 1
            self._gone -= 1
        if head == end or head > max(SHORT, end // 2):
            self._arrivals = _Arrivals(arrivals.base + head, arrivals.entries[head:])
            head = 0
        self._head = head
