"""The entries of the grouped queue: a waiting call with its options, the calls of one group, and a heap by time.

Decides: the order within a group, and how much of it fits into a batch.
Must not know: when a batch leaves, other groups, clocks.

Rules
-----
1. The entry with the lowest *rank* leaves first: its time of arrival, less ``SECONDS_PER_PRIORITY`` for each point of
   priority. So an item of priority 1 overtakes only items that arrived up to a second earlier, and no item starves.
2. Entries of one priority leave in order of arrival.
3. Entries with equal items leave together, count as one item, and weigh as much as the first of them.

Theory
------
The rank of an entry never changes while it waits. An entry whose priority is no higher than that of the entries before
it has a higher rank than they have. Such entries form a list in order of arrival, in which any operation takes constant
time. All other entries are in a heap by rank, so they take logarithmic time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    # A time, and a ticket to order equal times.
    Key: TypeAlias = tuple[float, int]

T = TypeVar("T")

# A point of priority counts as this many seconds of waiting.
SECONDS_PER_PRIORITY = 1.0
# An item leaves this share of its time limit before its deadline, because timers are late on a busy machine. This lead
# is at least LEAST_LEAD seconds, and at most half of the limit.
LEAD = 0.1
LEAST_LEAD = 0.005


# An entry equals only itself, and its repr() must not show the item, which may be private.
@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """A waiting call. ``time_limit`` is in seconds from its arrival to its deadline. ``waits`` means it is not refused.

    ``group`` and ``duplicate_of`` are compared by identity. ``duplicate_of`` is ``None`` for an item never shared.
    """

    item: Any
    group: Any
    weight: float
    duplicate_of: Any
    priority: float = 0.0
    time_limit: float | None = None
    waits: bool = field(default=False, kw_only=True)
    ticket: int = field(init=False)
    waiter: Any = field(init=False)
    arrived: float = field(init=False)

    def __iter__(self) -> Iterator[Any]:
        """Unpack like an entry of the plain queue: item, waiter, time of arrival."""
        return iter((self.item, self.waiter, self.arrived))

    @property
    def rank(self) -> Key:
        return self.arrived - SECONDS_PER_PRIORITY * self.priority, self.ticket

    @property
    def deadline(self) -> float:
        return inf if self.time_limit is None else self.arrived + self.time_limit

    @property
    def latest_departure(self) -> float:
        """The time at which an entry with a deadline stops waiting for more items."""
        time_limit = self.time_limit or 0.0
        return self.deadline - min(max(LEAD * time_limit, LEAST_LEAD), time_limit / 2)


class LazyHeap(Generic[T]):
    """A priority queue by time. The key of a dropped value stays in the heap until it is the lowest.

    At most half of the keys are such keys after an addition.
    """

    __slots__ = ("_heap", "values")

    def __init__(self) -> None:
        # By ticket. Unlike a dict, an OrderedDict finds its first value quickly after many deletions.
        self.values: OrderedDict[int, T] = OrderedDict()
        self._heap: list[Key] = []

    def add(self, key: Key, value: T) -> None:
        self.values[key[1]] = value
        heappush(self._heap, key)
        if len(self._heap) > 2 * len(self.values):
            # A set, because a value that was dropped and added again, always with the same key, is in the heap twice.
            self._heap = list({key for key in self._heap if key[1] in self.values})
            heapify(self._heap)

    def drop(self, ticket: int) -> None:
        self.values.pop(ticket, None)

    @property
    def first(self) -> T | None:
        while self._heap:
            value = self.values.get(self._heap[0][1])
            if value is not None:
                return value
            heappop(self._heap)
        return None


class Group:
    """The entries of one group. Duplicates are separate entries that count as one item."""

    __slots__ = ("duplicates", "first", "full_reason", "head", "in_order", "overtaking", "priority", "size", "weight")

    def __init__(self) -> None:
        # The entry that leaves first.
        self.first: Entry | None = None
        # The entries that leave in order of arrival, by ticket, and the priority of the last of them.
        self.in_order: OrderedDict[int, Entry] = OrderedDict()
        self.priority = 0.0
        # All other entries, by rank.
        self.overtaking = LazyHeap[Entry]()
        # By the key of equal items: their weight, and their entries by ticket, in order of arrival.
        self.duplicates: dict[Any, tuple[float, dict[int, Entry]]] = {}
        # The number of items, and their weight.
        self.size = 0
        self.weight = 0.0
        # The first entry, and the reason for which a full batch leaves, as the heaps of the queue store them.
        self.head: Entry | None = None
        self.full_reason: str | None = None

    @property
    def oldest(self) -> Entry:
        parts = (self.in_order, self.overtaking.values)
        return min((next(iter(part.values())) for part in parts if part), key=attrgetter("ticket"))

    def enter(self, entry: Entry) -> None:
        if not self.in_order or entry.priority <= self.priority:
            self.in_order[entry.ticket] = entry
            self.priority = entry.priority
        else:
            self.overtaking.add(entry.rank, entry)
        first = self.first
        # The entry is the youngest, so only a higher priority can bring it to the front.
        if first is None or (entry.priority > first.priority and entry.rank < first.rank):
            self.first = entry
        if entry.duplicate_of is not None:
            # Equal items weigh the same, even if weigh() returns another weight.
            entry.weight, duplicates = self.duplicates.setdefault(entry.duplicate_of, (entry.weight, {}))
            duplicates[entry.ticket] = entry
            if len(duplicates) > 1:
                return
        self.size += 1
        self.weight += entry.weight

    def leave(self, entry: Entry) -> None:
        if self.in_order.pop(entry.ticket, None) is None:
            self.overtaking.drop(entry.ticket)
        if entry is self.first:
            self.first = self._next()
        if entry.duplicate_of is not None:
            _, duplicates = self.duplicates[entry.duplicate_of]
            del duplicates[entry.ticket]
            if duplicates:
                return
            del self.duplicates[entry.duplicate_of]
        self.size -= 1
        self.weight -= entry.weight

    def cut(self, max_size: int, max_weight: float) -> list[list[Entry]]:
        """Remove the first items that fit into a batch, and return the entries of each item."""
        taken: list[list[Entry]] = []
        weight = 0.0
        while len(taken) < max_size and (first := self.first) is not None:
            if taken and weight + first.weight > max_weight:
                break
            weight += first.weight
            taken.append(self.take(first))
        return taken

    def take(self, entry: Entry) -> list[Entry]:
        """Remove the item of an entry, and return its entries."""
        key = entry.duplicate_of
        duplicates = [entry] if key is None else list(self.duplicates[key][1].values())
        for duplicate in duplicates:
            self.leave(duplicate)
        return duplicates

    def _next(self) -> Entry | None:
        in_order = next(iter(self.in_order.values()), None)
        if not self.overtaking.values:
            return in_order
        overtaking = cast("Entry", self.overtaking.first)
        return overtaking if in_order is None else min(in_order, overtaking, key=attrgetter("rank"))
