"""Where callers wait whose calls ask for more than a place in line: the lines of a group, and what is sorted by time.

Decides: the order within a group, and how much of it fits into a batch.
Must not know: when a batch leaves, other groups, clocks.

Of two places the one leaves first that has the lower *rank*: the time of arrival, less a second for each point of
priority. An item of priority 1 overtakes what came up to a second earlier, and nothing that has waited longer than
that: who waits ages, and nobody starves. Within a group those of one priority are a line of their own, first come first
served.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    # A time, and a ticket for those of the same time.
    Key: TypeAlias = tuple[float, int]

T = TypeVar("T")

# Below this length a heap is not worth cleaning.
SHORT = 64
# How many seconds of waiting a point of priority is worth.
POINT = 1.0
# An item that waits for company leaves before its deadline by this share of its time, so that it starts in time on a
# busy machine whose timers are late; by no less than so many seconds, but not before half of its time is over.
LEAD = 0.1
LEAST_LEAD = 0.005


class Entry:
    """Where one caller waits, and what the call asks for.

    Args:
        item: what the batch function gets.
        group: stands for the group; known by identity.
        weight: what it counts towards ``max_weight``.
        equal: stands for the item and all that are equal to it, known by identity; ``None`` if it shares with nobody.
        priority: how many seconds earlier it counts as arrived.
        patience: seconds from its arrival to its deadline; ``None`` if it has none.
    """

    __slots__ = (
        "arrived",
        "equal",
        "group",
        "item",
        "priority",
        "ticket",
        "time_limit",
        "waiter",
        "weight",
    )

    ticket: int
    waiter: Any
    arrived: float

    def __init__(
        self, item: Any, group: Any, weight: float, equal: Any, priority: float = 0.0, time_limit: float | None = None
    ) -> None:
        self.item = item
        self.group = group
        self.weight = weight
        self.equal = equal
        self.priority = priority
        self.time_limit = time_limit

    def __iter__(self) -> Iterator[Any]:
        """Give what a place in the plain core has: item, waiter, time of arrival."""
        return iter((self.item, self.waiter, self.arrived))

    def arrive(self, ticket: int, waiter: Any, now: float) -> None:
        self.ticket, self.waiter, self.arrived = ticket, waiter, now

    @property
    def rank(self) -> Key:
        """Who has a lower one leaves first."""
        return self.arrived - POINT * self.priority, self.ticket

    @property
    def deadline(self) -> float:
        """When it is dropped, if it has not left."""
        return inf if self.time_limit is None else self.arrived + self.time_limit

    @property
    def latest_departure(self) -> float:
        """When it waits for company no longer, if it has a deadline."""
        time_limit = self.time_limit or 0.0
        return self.deadline - min(max(LEAD * time_limit, LEAST_LEAD), time_limit / 2)


class Group:
    """The lines of one group. Those who share an item stand in them one by one, and count once."""

    __slots__ = ("equals", "first", "full", "head", "lines", "size", "weight")

    def __init__(self) -> None:
        # Who leaves first.
        self.first: Entry | None = None
        # By priority, then by ticket, in order of arrival: unlike a dict, as quick to lose the first as the last.
        self.lines: dict[float, OrderedDict[int, Entry]] = {}
        # Those who share an item, by ticket, in order of arrival.
        self.equals: dict[Any, dict[int, Entry]] = {}
        # How many items there are, and what they weigh.
        self.size = 0
        self.weight = 0.0
        # Its first and why it may leave before its time, as the heaps know it.
        self.head: Entry | None = None
        self.full: str | None = None

    @property
    def oldest(self) -> Entry:
        """Who came first."""
        return min(self._heads(), key=_ticket)

    def enter(self, place: Entry) -> None:
        line = self.lines.get(place.priority)
        if line is None:
            line = self.lines[place.priority] = OrderedDict()
        line[place.ticket] = place
        first = self.first
        # It is the youngest: only a higher priority takes it to the front.
        if first is None or (place.priority > first.priority and place.rank < first.rank):
            self.first = place
        if place.equal is not None:
            duplicates = self.equals.setdefault(place.equal, {})
            duplicates[place.ticket] = place
            if len(duplicates) > 1:
                # What is equal weighs the same, whatever weigh() says of it now.
                place.weight = next(iter(duplicates.values())).weight
                return
        self.size += 1
        self.weight += place.weight

    def leave(self, place: Entry) -> None:
        line = self.lines[place.priority]
        del line[place.ticket]
        if not line:
            del self.lines[place.priority]
        if place is self.first:
            self.first = self._next(line)
        if place.equal is not None:
            duplicates = self.equals[place.equal]
            del duplicates[place.ticket]
            if duplicates:
                return
            del self.equals[place.equal]
        self.size -= 1
        # Sums of floats drift.
        self.weight = self.weight - place.weight if self.size else 0.0

    def cut(self, max_size: int, max_weight: float) -> list[list[Entry]]:
        """Take out the first items that fit into a batch, each with all who share it."""
        taken: list[list[Entry]] = []
        weight = 0.0
        while len(taken) < max_size and (first := self.first) is not None:
            if taken and weight + first.weight > max_weight:
                break
            weight += first.weight
            duplicates = [first] if first.equal is None else list(self.equals[first.equal].values())
            for place in duplicates:
                self.leave(place)
            taken.append(duplicates)
        return taken

    def _next(self, line: OrderedDict[int, Entry]) -> Entry | None:
        """Return who is the first now, after the one who was has left ``line``."""
        if line and len(self.lines) == 1:
            return next(iter(line.values()))
        return min(self._heads(), key=_rank, default=None)

    def _heads(self) -> Iterator[Entry]:
        return (next(iter(line.values())) for line in self.lines.values())


class LazyHeap(Generic[T]):
    """Things by time. One that is dropped stays in the heap until it comes up."""

    __slots__ = ("_heap", "_things")

    def __init__(self) -> None:
        self._things: dict[Key, T] = {}
        self._heap: list[Key] = []

    def add(self, key: Key, thing: T) -> None:
        self._things[key] = thing
        heappush(self._heap, key)
        if len(self._heap) > max(SHORT, 2 * len(self._things)):
            self._heap = list(self._things)
            heapify(self._heap)

    def drop(self, key: Key) -> None:
        self._things.pop(key, None)

    @property
    def first(self) -> T | None:
        """The one whose time comes first."""
        while self._heap:
            thing = self._things.get(self._heap[0])
            if thing is not None:
                return thing
            heappop(self._heap)
        return None


def _rank(place: Entry) -> Key:
    return place.rank


def _ticket(place: Entry) -> int:
    return place.ticket
