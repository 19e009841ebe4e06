"""The grouped queue, for calls with groups, weights, lengths, duplicates, priorities, deadlines or a bound.

Decides: which items share a batch, which group leaves first, and which entries expire.
Must not know: what a group stands for, how a weight is found, or when two items are equal. ``_batcher.admission`` does.

Rules
-----
1. The rules and the use are those of ``queue``. The caller of ``add()`` makes the ``Entry`` beforehand, because that
   runs user code.
2. A batch has items of one group, at most ``max_size``, with a total weight of at most ``max_weight``.
3. Four groups are asked in this order, and the first that may leave is the next to leave. So no group starves.

   a. the group whose first entry has the lowest rank of all;
   b. the group of the oldest entry;
   c. of the groups with a full batch, the one whose first entry has the lowest rank;
   d. the group of the entry with the earliest deadline.
4. Groups a to c may leave if they have a full batch, or when their oldest entry may leave. Group d may leave only when
   that deadline is near.
5. A new entry waits in the *overflow* until ``admit_waiting()`` finds room for it. Without room, a batch does not wait
   for more items, because none can arrive.
6. With lengths, the first entry of a group is the head of its batch, or an entry whose deadline is near. Such an entry
   overtakes the same first entry only once.
7. An entry with a deadline leaves in time if a slot is free, and otherwise expires, even in the overflow. A shell calls
   ``expire()`` at the time ``expires_at``, and before ``take()``.

Each call takes at most logarithmic time for its arrival, and again for its departure, in the number of groups, of
deadlines, and of calls that overtake others. The memory is proportional to the number of queued calls.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Any, cast

from batchify._core.batch import Batch
from batchify._core.entries import Entry, Group, LazyHeap
from batchify._core.lengths import LengthGroup
from batchify._core.slots import SPAN, Slots

if TYPE_CHECKING:
    from batchify._core.limits import Limits
    from batchify._core.run_cost import RunCost


class GroupedQueue(Slots):
    def __init__(self, limits: Limits) -> None:
        # A group without entries is removed.
        self._groups: dict[Any, Group] = {}
        super().__init__(limits)
        self._max_weight = inf if limits.max_weight is None else limits.max_weight
        self._max_padded = inf if limits.max_padded is None else limits.max_padded
        self._room = inf if limits.max_pending is None else limits.max_pending
        self._arrivals = 0
        # The number of calls that arrived in another queue.
        self._adopted = 0
        # The entries that wait for room, by ticket, in order of arrival.
        self._overflow: OrderedDict[int, Entry] = OrderedDict()
        # The entries of all groups, by ticket, in order of arrival.
        self._admitted: OrderedDict[int, Entry] = OrderedDict()
        # All groups, and those that have a full batch, by the rank of their first entry.
        self._heads = LazyHeap[Group]()
        self._full = LazyHeap[Group]()
        # The entries that have a deadline, including the overflow.
        self._deadlines = LazyHeap[Entry]()

    @property
    def waiting(self) -> int:
        """The number of queued entries, including the overflow. Duplicates count separately."""
        return len(self._admitted) + len(self._overflow)

    @property
    def entries(self) -> list[Entry]:
        # An exception may have interrupted the move of an entry from one to the other.
        return [*{**self._admitted, **self._overflow}.values()]

    @property
    def admitted(self) -> list[Any]:
        """The waiters of the calls that have room."""
        return [entry.waiter for entry in self._admitted.values()]

    @property
    def arrivals(self) -> int:
        return self._arrivals

    @property
    def oldest_arrival(self) -> float:
        waiting = self._admitted or self._overflow
        return next(iter(waiting.values())).arrived if waiting else inf

    @property
    def withdrawn(self) -> int:
        return self._arrivals - self.waiting - self.taken

    @property
    def has_full(self) -> bool:
        # With lengths, more items fill a batch better, so a full batch leaves at once only to make room.
        is_full = self.is_full or (self._full.first is not None and self._run_cost is None)
        return is_full and len(self.running) < self._concurrency

    def plan(self) -> float | None:
        if not self._admitted or len(self.running) >= self._concurrency:
            return None
        oldest = self._oldest
        full = self._full.first
        if self.is_full or full is not None:
            return oldest.arrived if full is None else full.oldest.arrived
        due = oldest.arrived
        if oldest.ticket >= self._flush_before:
            due = self._timing.due(due, len(self.running))
        urgent = self._deadlines.first
        return due if urgent is None else min(due, urgent.latest_departure)

    @property
    def expires_at(self) -> float:
        """The next deadline; infinite without one."""
        urgent = self._deadlines.first
        return inf if urgent is None else urgent.deadline

    @property
    def is_full(self) -> bool:
        """Whether a new call finds no room."""
        return len(self._admitted) >= self._room

    def change(self, limits: Limits) -> None:
        super().change(limits)
        self._padded_sizes = limits.padded_sizes
        self._run_cost = limits.run_cost
        for group in self._groups.values():
            self._update_heaps(group)

    def add(self, entry: Entry, waiter: Any, now: float) -> int:
        """Put ``entry`` into the overflow and return its ticket, the mark for ``withdraw()``."""
        entry.ticket, entry.waiter, entry.arrived = self._arrivals, waiter, now
        self._arrivals += 1
        self._enqueue(entry)
        return entry.ticket

    def admit_waiting(self) -> list[Any]:
        waiters: list[Any] = []
        while self._overflow and not self.is_full:
            ticket, entry = next(iter(self._overflow.items()))
            # At any moment it is in one of them.
            self._admitted[ticket] = entry
            del self._overflow[ticket]
            group = self._groups.get(entry.group)
            if group is None:
                group = self._groups[entry.group] = Group() if self._run_cost is None else LengthGroup()
            group.enter(entry)
            self._update_heaps(group)
            waiters.append(entry.waiter)
        return waiters

    def take(self, now: float) -> Batch | None:
        can_leave = self._admitted and len(self.running) < self._concurrency
        departure = self._next(now) if can_leave else None
        if departure is None:
            return None
        batch = self._cut(*departure, now)
        if self._learner is not None:
            self._learner.departed(now)
        calls = len(batch.entries)
        leaving = map(self._admitted.__delitem__, [entry.ticket for entry in batch.entries])
        # No jump in between: the exception of a signal handler leaves all of these changed, or none.
        self.running += (batch,)
        self.taken += calls
        deque(leaving, maxlen=0)
        return batch

    def expire(self, now: float) -> list[Entry]:
        expired: list[Entry] = []
        while (entry := self._deadlines.first) is not None and entry.deadline <= now:
            self._remove(entry)
            expired.append(entry)
        return expired

    def withdraw(self, mark: int, waiter: Any) -> Entry | None:
        # The ticket of a call that arrived in this queue is its mark.
        for ticket in range(mark, max(mark + 1, min(mark + SPAN, self._adopted))):
            entry = self._admitted.get(ticket) or self._overflow.get(ticket)
            if entry is not None and entry.waiter is waiter:
                self._remove(entry)
                return entry
        return None

    def withdraw_all(self) -> list[tuple[int, Entry]]:
        """Withdraw all entries, and return them with their tickets."""
        entries = self.entries
        for entry in entries:
            self._remove(entry)
        return [(entry.ticket, entry) for entry in entries]

    def _remove(self, entry: Entry) -> None:
        if self._overflow.pop(entry.ticket, None) is None:
            del self._admitted[entry.ticket]
            group = self._groups[entry.group]
            group.leave(entry)
            self._update_heaps(group)
        self._deadlines.drop(entry.ticket)

    def adopt(self, queue: Slots, entries: list[Entry]) -> None:
        """Replace ``queue``, whose waiting calls are ``entries``. They have arrived already."""
        self.adopt_slots(queue)
        self._arrivals = self._adopted = queue.withdrawn + queue.taken + len(entries)
        for entry in entries:
            self._enqueue(entry)
        self.admit_waiting()

    @property
    def _oldest(self) -> Entry:
        return next(iter(self._admitted.values()))

    def _enqueue(self, entry: Entry) -> None:
        self._overflow[entry.ticket] = entry
        if entry.time_limit is not None:
            self._deadlines.add((entry.deadline, entry.ticket), entry)

    def _next(self, now: float) -> tuple[Group, str] | None:
        for group in (self._heads.first, self._groups[self._oldest.group], self._full.first):
            if group is not None and (reason := self._departure_reason(group, now)) is not None:
                return group, reason
        urgent = self._deadlines.first
        if urgent is not None and urgent.latest_departure <= now:
            return self._groups[urgent.group], "deadline"
        return None

    def _departure_reason(self, group: Group, now: float) -> str | None:
        if group.full_reason is not None or self.is_full:
            return group.full_reason or "full"
        oldest = group.oldest
        return self._reason(oldest.ticket, oldest.arrived, now)

    def _cut(self, group: Group, reason: str, now: float) -> Batch:
        if isinstance(group, LengthGroup):
            padding_per_run = cast("RunCost", self._run_cost).padding_per_run
            taken = group.cut_near(self._head(group, now), self._padded_sizes, self._max_padded, padding_per_run)
        else:
            taken = group.cut(self._max_size, self._max_weight)
        self._update_heaps(group)
        items = [duplicates[0].item for duplicates in taken]
        entries = [entry for duplicates in taken for entry in duplicates]
        expires_at = min(entry.deadline for entry in entries) if self._deadlines.values else inf
        for entry in entries:
            self._deadlines.drop(entry.ticket)
        waiters = [entry.waiter for entry in entries]
        arrived = [entry.arrived for entry in entries]
        batch = Batch(items, waiters, arrived, reason, self._max_size, now)
        if len(entries) > len(items):
            batch.shares = [n for n, equal in enumerate(taken) for _ in equal]
        batch.weights = [duplicates[0].weight for duplicates in taken]
        # Dropping an entry here could run the finalizer of an item.
        batch.entries, batch.expires_at = entries, expires_at
        batch.run_cost = self._run_cost
        return batch

    def _head(self, group: LengthGroup, now: float) -> Entry:
        first, urgent = cast("Entry", group.first), self._deadlines.first
        if urgent is None or urgent.latest_departure > now or first.ticket == group.overtaken:
            return first
        if urgent.group is not first.group or urgent.ticket not in self._admitted:
            return first
        group.overtaken = first.ticket
        return urgent

    def _update_heaps(self, group: Group) -> None:
        """Bring the heaps up to date with ``group``, and remove it if it is empty."""
        before, first, full_reason = group.head, group.first, self._full_reason(group)
        if first is before and full_reason == group.full_reason:
            return
        if before is not None:
            self._heads.drop(before.ticket)
            self._full.drop(before.ticket)
            if first is None:
                del self._groups[before.group]
        if first is not None:
            self._heads.add(first.rank, group)
            if full_reason is not None:
                self._full.add(first.rank, group)
        group.head, group.full_reason = first, full_reason

    def _full_reason(self, group: Group) -> str | None:
        if group.size >= self._max_size:
            return "full"
        return "weight" if group.weight >= self._max_weight else None
