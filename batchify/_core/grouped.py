"""The core of a function whose calls ask for more than a place in line: a group, a weight, a share, a rank, a deadline.

Decides: which items share a batch, which group leaves first, and whose time is over.
Must not know: what a group stands for, how a weight was found, when two items are equal. ``_demands`` says it.

It follows the rules of ``_core``, and a shell uses it in the same way. ``add()`` gets an ``Entry``, which
the caller makes beforehand, because that runs user code. The entry waits in the overflow until ``admit_waiting()``
finds room for it. In addition a shell asks ``expire()`` at ``expires_at``, and before it asks ``take()``.

Of the groups that may leave, the one leaves first whose first item has the lowest rank, so that none starves, however
many there are; but one whose oldest item has waited its time does not wait for one that may not leave yet. A group is
kept only while something waits in it.
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
    """The waiting lines of one batcher, one for each group, and the slots its batches run in."""

    __slots__ = (
        "_arrivals",
        "_deadlines",
        "_full",
        "_groups",
        "_heads",
        "_least",
        "_max_weight",
        "_overflow",
        "_places",
        "_refuses",
        "_room",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._max_weight = inf if limits.max_weight is None else limits.max_weight
        self._room = inf if limits.max_pending is None else limits.max_pending
        self._refuses = limits.on_full == "raise"
        self._arrivals = 0
        # Who waits for room, by ticket, in order of arrival. They are let in by let_in(), and not before.
        self._overflow: OrderedDict[int, Entry] = OrderedDict()
        # By ticket, in order of arrival, whichever group they are in; and a ticket that none of them is below.
        self._places: dict[int, Entry] = {}
        self._least = 0
        self._groups: dict[Any, Group] = {}
        # All groups, and those that may leave before their time, by the rank of their first item.
        self._heads = LazyHeap[Group]()
        self._full = LazyHeap[Group]()
        # Who has a deadline, at the door too.
        self._deadlines = LazyHeap[Entry]()

    @property
    def waiting(self) -> int:
        """How many items wait, also for room; those that share one are counted one by one."""
        return len(self._places) + len(self._overflow)

    @property
    def places(self) -> list[Entry]:
        """What waits, in order of arrival."""
        return [*self._places.values(), *self._overflow.values()]

    @property
    def arrivals(self) -> int:
        """How many items ever arrived; also the ticket of the next one. May be read from any thread."""
        return self._arrivals

    @property
    def has_full(self) -> bool:
        """Whether a full batch may leave now."""
        return self._free > 0 and (self._is_full or self._full.first is not None)

    @property
    def wake_at(self) -> float | None:
        """When ``take()`` is next worth asking if nothing else happens; ``None`` if never."""
        if not self._places or self._free <= 0:
            return None
        oldest = self._oldest
        full = self._full.first
        if self._is_full or full is not None:
            return oldest.arrived if full is None else full.oldest.arrived
        due = self._leaves_at(oldest.ticket, oldest.arrived)
        next_late = self._deadlines.first
        return due if next_late is None else min(due, next_late.latest_departure)

    @property
    def expires_at(self) -> float | None:
        """When ``expire()`` is next worth asking if nothing else happens; ``None`` if never."""
        next_late = self._deadlines.first
        return None if next_late is None else next_late.deadline

    @property
    def refuses(self) -> bool:
        """Whether there is no room for another item, and nobody may wait for it."""
        return self._refuses and self._is_full

    def change(self, limits: Limits) -> None:
        """Go by these options from now on; what runs is left alone, and what was learnt of run times is forgotten."""
        super().change(limits)
        for key, group in self._groups.items():
            self._note(key, group)

    def add(self, item: Any, waiter: Any, now: float) -> int:
        """Let a ``Entry`` stand at the door and return its ticket, to be compared with ``wake_ticket``."""
        place: Entry = item
        place.arrive(self._arrivals, waiter, now)
        self._arrivals += 1
        self._stand(place)
        return place.ticket

    def admit_waiting(self) -> list[Any]:
        """Let those who wait for room into the lines of their groups, as far as there is, and return their waiters."""
        waiters: list[Any] = []
        while self._overflow and not self._is_full:
            _, place = self._overflow.popitem(last=False)
            self._places[place.ticket] = place
            group = self._groups.get(place.group)
            if group is None:
                group = self._groups[place.group] = Group()
            group.enter(place)
            self._note(place.group, group)
            waiters.append(place.waiter)
        return waiters

    def take(self, now: float) -> Batch | None:
        """Return the next batch that may leave at ``now``, or ``None``."""
        group, reason = self._next(now) if self._places and self._free > 0 else (None, "")
        if group is None:
            self._set_wake_ticket()
            return None
        return self._start(self._cut(group, reason, now), now)

    def expire(self, now: float) -> list[Entry]:
        """Take out those whose deadlines are over at ``now``, and return their places."""
        late: list[Entry] = []
        while (place := self._deadlines.first) is not None and place.deadline <= now:
            self.withdraw(place.ticket)
            late.append(place)
        return late

    def withdraw(self, ticket: int) -> Entry | None:
        """Take out an item whose caller left, and return its place, ``None`` if it does not wait any more."""
        place = self._overflow.pop(ticket, None)
        if place is None:
            place = self._places.pop(ticket, None)
            if place is None:
                return None
            group = self._groups[place.group]
            group.leave(place)
            self._note(place.group, group)
            self._set_wake_ticket()
        if place.time_limit is not None:
            self._deadlines.drop((place.deadline, ticket))
        return place

    def adopt(self, queue: Slots, places: Iterable[Entry]) -> None:
        """Go on where ``queue`` has come to, with what waits there as ``places`` that have arrived."""
        self.adopt_slots(queue)
        self._arrivals = queue.arrivals
        for place in places:
            self._stand(place)
        self.admit_waiting()
        self._set_wake_ticket()

    @property
    def _oldest(self) -> Entry:
        """Who came first of those in the lines; somebody did."""
        # Quicker than the first key of a dict, which looks past all that were taken out before it.
        while self._least not in self._places:
            self._least += 1
        return self._places[self._least]

    @property
    def _is_full(self) -> bool:
        """Whether there is no room: more company cannot come before something leaves."""
        return len(self._places) >= self._room

    def _stand(self, place: Entry) -> None:
        """Let ``place`` stand at the door."""
        self._overflow[place.ticket] = place
        if place.time_limit is not None:
            self._deadlines.add((place.deadline, place.ticket), place)
            if self._deadlines.first is place:
                # Whoever waits for the next deadline waits too long now.
                self.wake_ticket = 0

    def _next(self, now: float) -> tuple[Group | None, str]:
        """Return the group that leaves first of those that may leave now, and why it may."""
        first = cast("Group", self._heads.first)
        oldest = self._groups[self._oldest.group]
        for group in (first, oldest):
            reason = self._why(group, now)
            if reason is not None:
                return group, reason
        # It is not the time of the oldest yet, and so it is nobody's: only those leave that have nothing to wait for.
        full = self._full.first
        if full is not None:
            return full, str(full.full)
        urgent = self._deadlines.first
        if urgent is not None and urgent.latest_departure <= now:
            return self._groups[urgent.group], "deadline"
        return None, ""

    def _why(self, group: Group, now: float) -> str | None:
        if group.full is not None or self._is_full:
            return group.full or "full"
        oldest = group.oldest
        return self._reason(oldest.ticket, oldest.arrived, now)

    def _cut(self, group: Group, reason: str, now: float) -> Batch:
        taken = group.cut(self._max_size, self._max_weight)
        self._note(taken[0][0].group, group)
        items = [duplicates[0].item for duplicates in taken]
        places = [(place, index) for index, duplicates in enumerate(taken) for place in duplicates]
        # The batch keeps the places: dropping one may run the finalizer of an item, which is not for here.
        tickets = {place.ticket: place for place, _ in places}
        for ticket, place in tickets.items():
            del self._places[ticket]
            if place.time_limit is not None:
                self._deadlines.drop((place.deadline, ticket))
        return Batch(
            items,
            [place.waiter for place, _ in places],
            [place.arrived for place, _ in places],
            tickets,
            reason,
            self._max_size,
            now,
            shares=None if len(places) == len(items) else [index for _, index in places],
            weights=[duplicates[0].weight for duplicates in taken],
        )

    def _note(self, key: Any, group: Group) -> None:
        """Tell the heaps what has changed in ``group``."""
        before, first, full = group.head, group.first, self._why_full(group)
        if first is before and full == group.full:
            return
        if first is not before:
            if before is not None:
                self._heads.drop(before.rank)
            if first is None:
                del self._groups[key]
            else:
                self._heads.add(first.rank, group)
        if before is not None and group.full is not None:
            self._full.drop(before.rank)
        if first is not None and full is not None:
            self._full.add(first.rank, group)
        group.head, group.full = first, full

    def _why_full(self, group: Group) -> str | None:
        if group.size >= self._max_size:
            return "full"
        return "weight" if group.weight >= self._max_weight else None

    def _set_wake_ticket(self) -> None:
        # Any arrival may be what fills a group, or the first of one.
        self.wake_ticket = NEVER if self._free <= 0 else 0
