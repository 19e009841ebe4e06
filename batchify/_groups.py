"""The core of a function whose calls ask for more than a place in line: a group, a weight, a share of an equal item.

Decides: which items share a batch, how many of them, and which group leaves first.
Must not know: what a group stands for, how a weight was found, when two items are equal. ``_demands`` says it.

It follows the rules of ``_core``, and a shell uses it in the same way. What ``add()`` gets is a ``Place``, made by the
caller beforehand, since all that makes it is somebody else's code; and it stands at the door until ``let_in()`` finds
room for it.

Each group is a line of its own. Of the groups that may leave, the one leaves first whose head came first, so that none
starves, however many there are. Two heaps of tickets say which that is: those of the heads of all groups, and those of
the heads of full groups, which may leave before their time. A group is kept only while something waits in it.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any

from batchify._batch import Batch
from batchify._slots import NEVER, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchify._config import Config

# Below this length a heap is not worth cleaning.
SHORT = 64


class Place:
    """Where one caller waits, and what the call asks for.

    Args:
        item: what the batch function gets.
        group: stands for the group; known by identity.
        weight: what it counts towards ``max_weight``.
        equal: stands for the item and all that are equal to it, known by identity; ``None`` if it shares with nobody.
    """

    __slots__ = ("arrived", "equal", "group", "item", "ticket", "waiter", "weight")

    ticket: int
    waiter: Any
    arrived: float

    def __init__(self, item: Any, group: Any, weight: float, equal: Any) -> None:
        self.item = item
        self.group = group
        self.weight = weight
        self.equal = equal

    def __iter__(self) -> Iterator[Any]:
        """Give what a place in the plain core has: item, waiter, time of arrival."""
        return iter((self.item, self.waiter, self.arrived))


class Group:
    """The line of one group. Those who share an item stand in it one by one, and count once."""

    __slots__ = ("equals", "full", "head", "places", "size", "weight")

    def __init__(self) -> None:
        # By ticket, in order of arrival: unlike a dict, it is as quick to lose its first as its last.
        self.places: OrderedDict[int, Place] = OrderedDict()
        # The tickets that share an item, in order of arrival.
        self.equals: dict[Any, dict[int, None]] = {}
        # How many items there are, and what they weigh.
        self.size = 0
        self.weight = 0.0
        # The ticket at the head and why the group may leave before its time, as the heaps know it.
        self.head = -1
        self.full: str | None = None

    def enter(self, place: Place) -> None:
        self.places[place.ticket] = place
        if place.equal is not None:
            sharers = self.equals.setdefault(place.equal, {})
            sharers[place.ticket] = None
            if len(sharers) > 1:
                # What is equal weighs the same, whatever weigh() says of it now.
                place.weight = self.places[next(iter(sharers))].weight
                return
        self.size += 1
        self.weight += place.weight

    def leave(self, ticket: int) -> Place:
        place = self.places.pop(ticket)
        if place.equal is not None:
            sharers = self.equals[place.equal]
            del sharers[ticket]
            if sharers:
                return place
            del self.equals[place.equal]
        self.size -= 1
        # Sums of floats drift.
        self.weight = self.weight - place.weight if self.size else 0.0
        return place

    def cut(self, max_size: int, max_weight: float) -> list[list[Place]]:
        """Take out the first items that fit into a batch, each with all who share it."""
        taken: list[list[Place]] = []
        weight = 0.0
        while self.places and len(taken) < max_size:
            first = next(iter(self.places.values()))
            if taken and weight + first.weight > max_weight:
                break
            weight += first.weight
            sharers = [first.ticket] if first.equal is None else list(self.equals[first.equal])
            taken.append([self.leave(ticket) for ticket in sharers])
        return taken


class Heads:
    """Groups by the ticket at their head. A ticket that is no longer one stays in the heap until it comes up."""

    __slots__ = ("_groups", "_heap")

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}
        self._heap: list[int] = []

    def add(self, ticket: int, group: Group) -> None:
        self._groups[ticket] = group
        heappush(self._heap, ticket)
        if len(self._heap) > max(SHORT, 2 * len(self._groups)):
            self._heap = list(self._groups)
            heapify(self._heap)

    def drop(self, ticket: int) -> None:
        self._groups.pop(ticket, None)

    @property
    def first(self) -> Group | None:
        """The group whose head came first."""
        while self._heap:
            group = self._groups.get(self._heap[0])
            if group is not None:
                return group
            heappop(self._heap)
        return None


class Groups(Slots):
    """The waiting lines of one batcher, one for each group, and the slots its batches run in."""

    __slots__ = ("_arrivals", "_door", "_full", "_groups", "_heads", "_max_weight", "_places", "_refuses", "_room")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._max_weight = inf if config.max_weight is None else config.max_weight
        self._room = inf if config.max_pending is None else config.max_pending
        self._refuses = config.on_full == "raise"
        self._arrivals = 0
        # Who waits for room, by ticket, in order of arrival. They are let in by let_in(), and not before.
        self._door: OrderedDict[int, Place] = OrderedDict()
        # By ticket, whichever group they are in.
        self._places: dict[int, Place] = {}
        self._groups: dict[Any, Group] = {}
        self._heads = Heads()
        self._full = Heads()

    @property
    def waiting(self) -> int:
        """How many items wait, also for room; those that share one are counted one by one."""
        return len(self._places) + len(self._door)

    @property
    def places(self) -> list[Place]:
        """What waits, in order of arrival."""
        return [*self._places.values(), *self._door.values()]

    @property
    def arrivals(self) -> int:
        """How many items ever arrived; also the ticket of the next one. May be read from any thread."""
        return self._arrivals

    @property
    def wake_at(self) -> float | None:
        """When ``take()`` is next worth asking if nothing else happens; ``None`` if never."""
        oldest = self._heads.first
        if oldest is None or self._busy:
            return None
        full = oldest if self._is_full else self._full.first
        return self._arrived(full) if full is not None else self._leaves_at(oldest.head, self._arrived(oldest))

    @property
    def refuses(self) -> bool:
        """Whether there is no room for another item, and nobody may wait for it."""
        return self._refuses and self._is_full

    def change(self, config: Config) -> None:
        """Go by these options from now on; what runs is left alone, and what was learnt of run times is forgotten."""
        super().change(config)
        for key, group in self._groups.items():
            self._note(key, group)

    def add(self, item: Any, waiter: Any, now: float) -> int:
        """Let a ``Place`` stand at the door and return its ticket, to be compared with ``alarm``."""
        place: Place = item
        place.ticket, place.waiter, place.arrived = self._arrivals, waiter, now
        self._arrivals += 1
        self._door[place.ticket] = place
        return place.ticket

    def let_in(self) -> list[Any]:
        """Let those who wait for room into the lines of their groups, as far as there is, and return their waiters."""
        waiters: list[Any] = []
        while self._door and not self._is_full:
            _, place = self._door.popitem(last=False)
            self._places[place.ticket] = place
            group = self._groups.get(place.group)
            if group is None:
                group = self._groups[place.group] = Group()
            group.enter(place)
            self._note(place.group, group)
            waiters.append(place.waiter)
        return waiters

    def rang(self) -> bool:
        """Set the next alarm after this one was heard; say whether a full batch may leave now."""
        self._set_alarm()
        return (self._is_full or self._full.first is not None) and not self._busy

    def take(self, now: float) -> Batch | None:
        """Return the next batch that may leave at ``now``, or ``None``."""
        oldest = None if self._busy else self._heads.first
        if oldest is None:
            self._set_alarm()
            return None
        full = "full" if self._is_full else None
        reason = oldest.full or full or self._reason(oldest.head, self._arrived(oldest), now)
        if reason is None:
            # It is not its time yet, and so it is nobody's: only those leave that have nothing to wait for.
            other = self._full.first
            if other is None:
                self._set_alarm()
                return None
            oldest, reason = other, str(other.full)
        return self._start(self._cut(oldest, reason, now), now)

    def withdraw(self, ticket: int) -> Place | None:
        """Take out an item whose caller left, and return its place, ``None`` if it does not wait any more."""
        at_door = self._door.pop(ticket, None)
        if at_door is not None:
            return at_door
        place = self._places.pop(ticket, None)
        if place is None:
            return None
        group = self._groups[place.group]
        group.leave(ticket)
        self._note(place.group, group)
        self._set_alarm()
        return place

    @property
    def _is_full(self) -> bool:
        """Whether there is no room: more company cannot come before something leaves."""
        return len(self._places) >= self._room

    def _arrived(self, group: Group) -> float:
        return self._places[group.head].arrived

    def _cut(self, group: Group, reason: str, now: float) -> Batch:
        key = self._places[group.head].group
        taken = group.cut(self._max_size, self._max_weight)
        self._note(key, group)
        items = [sharers[0].item for sharers in taken]
        places = [(place, index) for index, sharers in enumerate(taken) for place in sharers]
        # The batch keeps the places: dropping one may run the finalizer of an item, which is not for here.
        tickets = {place.ticket: place for place, _ in places}
        for ticket in tickets:
            del self._places[ticket]
        return Batch(
            items,
            [place.waiter for place, _ in places],
            [place.arrived for place, _ in places],
            tickets,
            reason,
            self._max_size,
            now,
            shares=None if len(places) == len(items) else [index for _, index in places],
            weights=[sharers[0].weight for sharers in taken],
        )

    def _note(self, key: Any, group: Group) -> None:
        """Tell the heaps what has changed in ``group``."""
        head = next(iter(group.places), -1)
        full = self._why_full(group)
        if head != group.head:
            self._heads.drop(group.head)
            if head < 0:
                del self._groups[key]
            else:
                self._heads.add(head, group)
        if (head, full) != (group.head, group.full):
            self._full.drop(group.head)
            if full is not None:
                self._full.add(head, group)
        group.head, group.full = head, full

    def _why_full(self, group: Group) -> str | None:
        if group.size >= self._max_size:
            return "full"
        return "weight" if group.weight >= self._max_weight else None

    def _set_alarm(self) -> None:
        # Any arrival may be what fills a group, or the first of one.
        self.alarm = NEVER if self._busy else 0
