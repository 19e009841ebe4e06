"""The grouped queue: which items leave together, when, and why, if a call asks for more than its turn.

Decides: which items share a batch, which group leaves first, and which entries expire.
Must not know: what a group stands for, how a weight was found, when two items are equal. ``_batcher.admission`` does.

Rules
-----
1. The rules and the use are those of ``queue``. The item of ``add()`` is an ``Entry``, which the caller makes
   beforehand, because that runs user code.
2. A batch has items of one group, no more than ``max_size``, and no heavier than ``max_weight`` together.
3. Of the groups that may leave, the one leaves whose first entry has the lowest rank. So no group starves.
4. If the oldest entry of all has waited its time, its group leaves at once: it does not wait for a group of lower rank
   that may not leave yet.
5. A new entry stands in the *overflow* until ``admit_waiting()`` finds room for it. With no room left, a batch does not
   wait for items that could not come.
6. An entry with a deadline leaves in time if a slot is free, and otherwise expires, in the overflow too. A shell calls
   ``expire()`` at the time ``expires_at``, and before ``take()``.

A group exists only while an entry of it waits.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Any, cast

from batchify._core.batch import Batch
from batchify._core.entries import Entry, Group, LazyHeap
from batchify._core.slots import NEVER, Slots

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._core.limits import Limits


class GroupedQueue(Slots):
    """The queue of one batcher, in groups, and the slots that its batches run in."""

    __slots__ = (
        "_admitted",
        "_arrivals",
        "_deadlines",
        "_full",
        "_groups",
        "_heads",
        "_max_weight",
        "_oldest_ticket",
        "_overflow",
        "_refuses",
        "_room",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._max_weight = inf if limits.max_weight is None else limits.max_weight
        self._room = inf if limits.max_pending is None else limits.max_pending
        self._refuses = limits.on_full == "raise"
        self._arrivals = 0
        # The entries that wait for room, by ticket, in order of arrival.
        self._overflow: OrderedDict[int, Entry] = OrderedDict()
        # The entries of all groups, by ticket, in order of arrival; and a ticket that is not above any of them.
        self._admitted: dict[int, Entry] = {}
        self._oldest_ticket = 0
        self._groups: dict[Any, Group] = {}
        # All groups, and those that have a full batch, by the rank of their first entry.
        self._heads = LazyHeap[Group]()
        self._full = LazyHeap[Group]()
        # The entries that have a deadline, those in the overflow too.
        self._deadlines = LazyHeap[Entry]()

    @property
    def waiting(self) -> int:
        """The number of queued entries, those in the overflow too. Duplicates count one by one."""
        return len(self._admitted) + len(self._overflow)

    @property
    def entries(self) -> list[Entry]:
        """The waiting entries, in order of arrival."""
        return [*self._admitted.values(), *self._overflow.values()]

    @property
    def arrivals(self) -> int:
        """The number of items that ever arrived, which is the next ticket. Any thread may read it."""
        return self._arrivals

    @property
    def has_full(self) -> bool:
        """Whether a full batch may leave now."""
        return len(self.running) < self._concurrency and (self._is_full or self._full.first is not None)

    @property
    def wake_at(self) -> float | None:
        """The time at which ``take()`` has a batch if nothing else happens, or ``None``."""
        if not self._admitted or len(self.running) >= self._concurrency:
            return None
        oldest = self._oldest
        full = self._full.first
        if self._is_full or full is not None:
            return oldest.arrived if full is None else full.oldest.arrived
        due = self._leaves_at(oldest.ticket, oldest.arrived)
        urgent = self._deadlines.first
        return due if urgent is None else min(due, urgent.latest_departure)

    @property
    def expires_at(self) -> float | None:
        """The time at which ``expire()`` has something to return, or ``None``."""
        urgent = self._deadlines.first
        return None if urgent is None else urgent.deadline

    @property
    def refuses(self) -> bool:
        """Whether there is no room for another item, and no call may wait for it."""
        return self._refuses and self._is_full

    def change(self, limits: Limits) -> None:
        """Apply new limits. Running batches keep theirs, and the learnt run times are forgotten."""
        super().change(limits)
        for key, group in self._groups.items():
            self._update_heaps(key, group)

    def add(self, item: Any, waiter: Any, now: float) -> int:
        """Put an ``Entry`` into the overflow and return its ticket, to be compared with ``wake_ticket``."""
        entry: Entry = item
        entry.arrive(self._arrivals, waiter, now)
        self._arrivals += 1
        self._enqueue(entry)
        return entry.ticket

    def admit_waiting(self) -> list[Any]:
        """Move entries from the overflow into their groups, as far as there is room, and return their waiters."""
        waiters: list[Any] = []
        while self._overflow and not self._is_full:
            _, entry = self._overflow.popitem(last=False)
            self._admitted[entry.ticket] = entry
            group = self._groups.get(entry.group)
            if group is None:
                group = self._groups[entry.group] = Group()
            group.enter(entry)
            self._update_heaps(entry.group, group)
            waiters.append(entry.waiter)
        return waiters

    def take(self, now: float) -> Batch | None:
        """Return the next batch that may leave at ``now``, or ``None``."""
        can_leave = self._admitted and len(self.running) < self._concurrency
        group, reason = self._next(now) if can_leave else (None, "")
        if group is None:
            self.reset_wake_ticket()
            return None
        return self._start(self._cut(group, reason, now), now)

    def expire(self, now: float) -> list[Entry]:
        """Remove the entries whose deadline is over at ``now``, and return them."""
        expired: list[Entry] = []
        while (entry := self._deadlines.first) is not None and entry.deadline <= now:
            self.withdraw(entry.ticket)
            expired.append(entry)
        return expired

    def withdraw(self, ticket: int) -> Entry | None:
        """Remove the entry of a caller that left, and return it, or ``None`` if it does not wait any more."""
        entry = self._overflow.pop(ticket, None)
        if entry is None:
            entry = self._admitted.pop(ticket, None)
            if entry is None:
                return None
            group = self._groups[entry.group]
            group.leave(entry)
            self._update_heaps(entry.group, group)
            self.reset_wake_ticket()
        if entry.time_limit is not None:
            self._deadlines.drop((entry.deadline, ticket))
        return entry

    def adopt(self, queue: Slots, entries: Iterable[Entry]) -> None:
        """Continue in the place of ``queue``, whose waiting calls are ``entries`` that have arrived."""
        self.adopt_slots(queue)
        self._arrivals = queue.arrivals
        for entry in entries:
            self._enqueue(entry)
        self.admit_waiting()
        self.reset_wake_ticket()

    def reset_wake_ticket(self) -> None:
        # Any arrival can fill a group, or be the first of one.
        self.wake_ticket = NEVER if len(self.running) >= self._concurrency else 0

    @property
    def _oldest(self) -> Entry:
        """The admitted entry that arrived first. There must be one."""
        # Quicker than the first key of a dict, which skips all keys that were deleted before it.
        while self._oldest_ticket not in self._admitted:
            self._oldest_ticket += 1
        return self._admitted[self._oldest_ticket]

    @property
    def _is_full(self) -> bool:
        """Whether there is no room for more items before a batch leaves."""
        return len(self._admitted) >= self._room

    def _enqueue(self, entry: Entry) -> None:
        self._overflow[entry.ticket] = entry
        if entry.time_limit is not None:
            self._deadlines.add((entry.deadline, entry.ticket), entry)
            if self._deadlines.first is entry:
                # The shell waits for a later deadline, and must look again.
                self.wake_ticket = 0

    def _next(self, now: float) -> tuple[Group | None, str]:
        """Return the group that leaves first of those that may leave now, and its reason."""
        first = cast("Group", self._heads.first)
        oldest = self._groups[self._oldest.group]
        for group in (first, oldest):
            reason = self._departure_reason(group, now)
            if reason is not None:
                return group, reason
        # The oldest entry may not leave yet, and so no other one may, except those that need not wait for more items.
        full = self._full.first
        if full is not None:
            return full, str(full.full_reason)
        urgent = self._deadlines.first
        if urgent is not None and urgent.latest_departure <= now:
            return self._groups[urgent.group], "deadline"
        return None, ""

    def _departure_reason(self, group: Group, now: float) -> str | None:
        if group.full_reason is not None or self._is_full:
            return group.full_reason or "full"
        oldest = group.oldest
        return self._reason(oldest.ticket, oldest.arrived, now)

    def _cut(self, group: Group, reason: str, now: float) -> Batch:
        """Remove the first items of ``group`` that fit together, and return them as a batch."""
        taken = group.cut(self._max_size, self._max_weight)
        self._update_heaps(taken[0][0].group, group)
        items = [duplicates[0].item for duplicates in taken]
        entries = [(entry, index) for index, duplicates in enumerate(taken) for entry in duplicates]
        # The batch keeps the entries: dropping one here could run the finalizer of an item.
        tickets = {entry.ticket: entry for entry, _ in entries}
        for ticket, entry in tickets.items():
            del self._admitted[ticket]
            if entry.time_limit is not None:
                self._deadlines.drop((entry.deadline, ticket))
        return Batch(
            items,
            [entry.waiter for entry, _ in entries],
            [entry.arrived for entry, _ in entries],
            tickets,
            reason,
            self._max_size,
            now,
            shares=None if len(entries) == len(items) else [index for _, index in entries],
            weights=[duplicates[0].weight for duplicates in taken],
        )

    def _update_heaps(self, key: Any, group: Group) -> None:
        """Bring the heaps up to date with ``group``, and forget it if it is empty."""
        before, first, full_reason = group.head, group.first, self._full_reason(group)
        if first is before and full_reason == group.full_reason:
            return
        if first is not before:
            if before is not None:
                self._heads.drop(before.rank)
            if first is None:
                del self._groups[key]
            else:
                self._heads.add(first.rank, group)
        if before is not None and group.full_reason is not None:
            self._full.drop(before.rank)
        if first is not None and full_reason is not None:
            self._full.add(first.rank, group)
        group.head, group.full_reason = first, full_reason

    def _full_reason(self, group: Group) -> str | None:
        if group.size >= self._max_size:
            return "full"
        return "weight" if group.weight >= self._max_weight else None
